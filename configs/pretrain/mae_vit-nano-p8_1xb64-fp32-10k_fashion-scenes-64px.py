# Copyright (c) addp_mm contributors. Apache-2.0.
# mmpretrain's MAE on the images of the shipped ADDP nano and with as many operations: an image
# costs a fifth of ADDP's, so that 10150 batches of 64 cost what 4000 of 32 do
# (tools/benchmarks/pretraining_flops.py: 199 and 205 TFLOPs).
_base_ = [
    '../_base_/models/mae-pretrain_vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/schedules/pretrain_nano.py',
]

max_iters = 10150
val_dataloader = val_cfg = val_evaluator = None

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=500, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=64)
