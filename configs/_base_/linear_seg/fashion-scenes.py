# Copyright (c) addp_mm contributors. Apache-2.0.
# The linear protocol at 64 px, on the 11 classes of FashionScenes. Three quarters of all pixels are
# background. With equal weights, a training as short as this learns only the background.
_base_ = ['../datasets/fashion_scenes_seg.py', '../schedules/finetune_nano.py', '../seg_runtime.py']

max_iters = 400
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=20),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=20, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)

# changes to a model of this folder
on_scenes = dict(
    data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=32)),
    decode_head=dict(num_classes=11, norm_cfg=dict(type='BN'), loss_decode=dict(class_weight=[0.1] + [1.0] * 10)),
    test_cfg=dict(_delete_=True, mode='whole'),
)
