# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './addp-vit-base-p16_ft_8xb128-bf16-coslr-100e_in1k-256px.py'

model = dict(
    backbone=dict(
        arch='large', drop_path_rate=0.2, init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth')
    ),
    head=dict(in_channels=1024),
)

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(lr=2.5e-4 * 1024 / 256), paramwise_cfg=dict(layer_decay_rate=0.8), accumulative_counts=2
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / (2.5e-4 * 1024 / 256),
        by_epoch=True,
        begin=5,
        end=50,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=50)
