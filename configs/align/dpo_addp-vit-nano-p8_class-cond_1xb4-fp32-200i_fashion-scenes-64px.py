# Copyright (c) addp_mm contributors. Apache-2.0.
# DPO (arXiv 2305.18290) of the class-conditional nano generator, on pairs of its own trajectories.
_base_ = [
    '../_base_/models/addp_vit-nano-p8_class-cond_lora.py',
    '../_base_/alignment/nano_garments.py',
    '../_base_/schedules/align_nano.py',
]

trajectories = _base_.folder + 'samples/trajectories'
model = dict(
    type='addp_mm.PreferenceTuning',
    generator=_base_.generator,
    trajectories=trajectories,
    loss=dict(beta=0.1, form='sequence'),
    weighted='none',
    cache_gib=2.0,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='addp_mm.PreferencePairs', trajectories=trajectories, selection=_base_.folder + 'selection.json'),
)
auto_scale_lr = dict(enable=False, base_batch_size=4)
