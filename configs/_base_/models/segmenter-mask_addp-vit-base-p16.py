# Copyright (c) addp_mm contributors. Apache-2.0.
# Segmenter's mask transformer (arXiv 2105.05633) on the last map of a ViT-B/16, after its final
# norm.
_base_ = './segmentor_addp-vit-base-p16.py'

model = dict(
    backbone=dict(out_indices=-1, pad_to_patch=True),
    decode_head=dict(
        type='SegmenterMaskTransformerHead',
        in_channels=768,
        in_index=0,
        channels=768,
        num_classes=150,
        num_layers=2,
        num_heads=12,
        embed_dims=768,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(480, 480)),
)
