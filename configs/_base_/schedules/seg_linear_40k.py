# Copyright (c) addp_mm contributors. Apache-2.0.
# DINOv2's linear protocol (dinov2_vitb14_ade20k_linear_config.py of its release): 40 000 iterations
# at batch 16 of AdamW in float32, 1500 iterations of warm-up, then linear to 0. Weight decay is the
# same for all parameters.
_base_ = '../seg_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3 * 16 / 16, betas=(0.9, 0.999), weight_decay=1e-4)
)

max_iters = 40000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000, save_best='mIoU'))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=16)
