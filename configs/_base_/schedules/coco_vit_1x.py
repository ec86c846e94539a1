# Copyright (c) addp_mm contributors. Apache-2.0.
# 12 epochs at batch 16: mmdet's 1x with the AdamW of iBOT's detectors (arXiv 2111.07832), the
# warm-up of mmdet's Swin and the layer decay of ViTDet.
_base_ = '../det_runtime.py'
custom_imports = dict(imports=['addp_mm'])

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),  # not needed with bfloat16
    optimizer=dict(type='AdamW', lr=1e-4 * 16 / 16, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.7, flat_decay_mult=0.0, custom_keys={'backbone.pos_embed': dict(decay_mult=0.0)}
    ),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
