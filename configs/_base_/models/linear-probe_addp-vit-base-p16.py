# Copyright (c) addp_mm contributors. Apache-2.0.
# Linear layer on the frozen class token, normalised without parameters, as in MAE (arXiv
# 2111.06377, A.1). Frozen features keep the norm after the embedding that pre-training has
# (pre_norm=True).
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='base',
        img_size=256,
        patch_size=16,
        out_type='cls_token',
        pre_norm=True,
        frozen_stages=12,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth'),
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
