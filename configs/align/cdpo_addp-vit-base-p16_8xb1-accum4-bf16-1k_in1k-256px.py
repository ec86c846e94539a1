# Copyright (c) addp_mm contributors. Apache-2.0.
# cDPO (arXiv 2411.19943) of the released ADDP ViT-B, the form of the paper. A pair has 40 states of
# the sampler, so a GPU has one pair at a time. Settings are ours; they were not run at this size.
_base_ = [
    '../_base_/models/addp_vit-base-p16_lora.py',
    '../_base_/alignment/imagenet.py',
    '../_base_/schedules/align_imagenet.py',
]

trajectories = _base_.folder + 'samples/trajectories'
model = dict(
    type='addp_mm.PreferenceTuning',
    generator=_base_.generator,
    trajectories=trajectories,
    loss=dict(beta=0.1, form='sequence'),
    weighted='rejected',
)
train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='addp_mm.PreferencePairs',
        trajectories=trajectories,
        selection=_base_.folder + 'selection.json',
        scores=_base_.folder + 'scores.safetensors',
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
