# Copyright (c) addp_mm contributors. Apache-2.0.
# Classifier for fine-tuning: mean of the patch tokens, final norm, linear layer. The norm after the
# embedding of pre-training is dropped, as in the published fine-tuning (pre_norm=False).
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='base',
        img_size=256,
        patch_size=16,
        out_type='avg_featmap',
        drop_path_rate=0.1,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
