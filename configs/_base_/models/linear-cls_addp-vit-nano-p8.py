# Copyright (c) addp_mm contributors. Apache-2.0.
# The norm after the embedding stays as in pre-training (`pre_norm`). The final norm is applied to
# the mean of the patch tokens.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='avg_featmap',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
