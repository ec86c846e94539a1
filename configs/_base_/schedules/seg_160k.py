# Copyright (c) addp_mm contributors. Apache-2.0.
# 160 000 iterations at batch 16: AdamW with layer-wise decay of the learning rate, 1500 iterations
# of warm-up, then linear to 0. No weight decay for biases, norms, tokens and positions. bfloat16
# needs no loss scaling.
_base_ = '../seg_runtime.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(type='AdamW', lr=1e-4 * 16 / 16, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65, flat_decay_mult=0.0, embed_decay_mult=0.0),
)

max_iters = 160000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=16000, save_best='mIoU'))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=16)
