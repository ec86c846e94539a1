# Copyright (c) addp_mm contributors. Apache-2.0.
# Makes right trajectories of the class-conditional nano generator more likely: the positive model
# of cDPO (arXiv 2411.19943), and supervised fine-tuning. The negative model has which='wrong'.
_base_ = [
    '../_base_/models/addp_vit-nano-p8_class-cond_lora.py',
    '../_base_/alignment/nano_garments.py',
    '../_base_/schedules/align_nano.py',
]

trajectories = _base_.folder + 'samples/trajectories'
model = dict(type='addp_mm.LikelihoodTuning', generator=_base_.generator, trajectories=trajectories, cache_gib=2.0)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='addp_mm.ChosenTrajectories',
        trajectories=trajectories,
        selection=_base_.folder + 'selection.json',
        which='right',
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
