# Copyright (c) addp_mm contributors. Apache-2.0.
# Fine-tuning of VOLO at a larger size (sail-sg/volo, README.md): 30 epochs with 5 of warm-up, from
# 8e-6 to 4e-6, with hardly any weight decay.
_base_ = './volo_300e.py'

optim_wrapper = dict(optimizer=dict(lr=8e-6, weight_decay=1e-8))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 8e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=4e-6, by_epoch=True, begin=5, end=30, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=512)
