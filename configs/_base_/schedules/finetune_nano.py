# Copyright (c) addp_mm contributors. Apache-2.0.
# Fine-tuning at nano scale: 300 iterations of AdamW with layer-wise decay of the learning rate.
max_iters = 300
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.85, norm_decay_mult=0.0, bias_decay_mult=0.0, embed_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=max_iters),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict()
test_cfg = dict()

log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=32)
