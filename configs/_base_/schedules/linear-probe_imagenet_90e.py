# Copyright (c) addp_mm contributors. Apache-2.0.
# 90 epochs at batch 16384: LARS without weight decay and without adaptive rates for biases, 10
# epochs of warm-up, cosine to 0, as in MAE (arXiv 2111.06377, A.1).
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(type='LARS', lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'.bias': dict(lars_exclude=True)}),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=10, end=90, convert_to_iter_based=True),
]

train_cfg = dict(by_epoch=True, max_epochs=90)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(enable=False, base_batch_size=16384)
