# Copyright (c) addp_mm contributors. Apache-2.0.
# ViTDet: 100 epochs of 118,000 images at batch 64, steps after 88.9 and 96.3 epochs. No weight
# decay for vectors (norms, biases, layer scale) and absolute positions; relative positions are
# decayed.
_base_ = '../det_runtime.py'
custom_imports = dict(imports=['addp_mm'])

max_iters = 184375
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),  # not needed with bfloat16
    optimizer=dict(type='AdamW', lr=1e-4 * 64 / 64, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.7, flat_decay_mult=0.0, custom_keys={'backbone.pos_embed': dict(decay_mult=0.0)}
    ),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[163889, 177546], gamma=0.1),
]

# a fifth of the iterations: 184375 = 5 * 36875
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=36875)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=64)
