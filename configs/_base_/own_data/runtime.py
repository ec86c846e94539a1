# Copyright (c) addp_mm contributors. Apache-2.0.
# Common settings of all stages of tools/pretrain_from_folder.py.
#
# That tool reads `own_data` of a stage's config:
#   batch_size  images in one step of the optimizer
#   max_iters   steps of the optimizer
#   max_passes  upper limit of passes over the images; few images shorten the training
# It fits the batch to the memory. It also replaces formulas over max_iters by numbers:
#   '0.05 * max_iters'  a number of iterations, here 5 % of the training
#   '40 / max_iters'    a rate per iteration
_base_ = ['../default_runtime.py']
default_scope = 'mmpretrain'

train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters='max_iters')
default_hooks = dict(checkpoint=dict(by_epoch=False, interval='0.125 * max_iters', max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
