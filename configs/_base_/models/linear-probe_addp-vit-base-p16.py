# Copyright (c) addp_mm contributors. Apache-2.0.
# Linear layer on the frozen class token, normalised without parameters, as in MAE (arXiv
# 2111.06377, A.1). The frozen backbone keeps the norm after the embedding of pre-training
# (pre_norm=True).
_base_ = './features_addp-vit-base-p16.py'

model = dict(
    backbone=dict(frozen_stages=12),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
