# Copyright (c) addp_mm contributors. Apache-2.0.
# What the stages of tools/pretrain_from_folder.py have in common. That tool reads `own_data` in the
# file of a stage: images for one step of the optimizer, the number of steps, and after how many
# passes over the images to stop all the same. All other counts of iterations in these files are
# meant for that number of steps and are scaled with it.
_base_ = ['../default_runtime.py']
default_scope = 'mmpretrain'

train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
custom_hooks = [dict(type='addp_mm.FiniteLossHook')]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
