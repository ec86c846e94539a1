# Copyright (c) addp_mm contributors. Apache-2.0.
# The class token is the feature. The frozen backbone keeps the norm after the embedding of
# pre-training (pre_norm=True).
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='base',
        img_size=256,
        patch_size=16,
        out_type='cls_token',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth'),
    ),
)
