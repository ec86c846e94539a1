# Copyright (c) addp_mm contributors. Apache-2.0.
# Seven and a half times as many ids as the run of 8,000 iterations, with the loss on held-out
# scenes, to see where it stops falling.
_base_ = './token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'

max_iters = 30000
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=1000, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=2000)
val_dataloader = _base_.test_dataloader
val_evaluator = _base_.test_evaluator
val_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=1000, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=64)
