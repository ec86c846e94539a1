# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP at nano scale: shipped tokenizer and predictor, a ViT with 128 dimensions and 6 blocks, no
# dropout (published: 0.1).
_base_ = ['./vq-tokenizer_nano-p8.py', './token-predictor_nano-p8.py']

model = dict(
    type='addp_mm.ADDP',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
    tokenizer=dict(
        **_base_.tokenizer,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://vq-tokenizer_nano-p8.safetensors', strict=True),
    ),
    predictor=dict(
        **_base_.predictor,
        init_cfg=dict(
            type='addp_mm.Pretrained', checkpoint='addp_mm://token-predictor_nano-p8.safetensors', strict=True
        ),
    ),
    backbone=dict(type='addp_mm.ADDPViT', arch='nano', img_size=64, patch_size=8, out_type='raw', pre_norm=True),
    neck=dict(
        type='addp_mm.TokenDecoder',
        num_tokens=64,
        in_dims=128,
        num_layers=2,
        num_heads=4,
        drop_rate=0.0,
        token_space=_base_.token_space,
    ),
    head=dict(
        type='addp_mm.TokenHead',
        in_dims=128,
        token_space=_base_.token_space,
        loss=dict(type='addp_mm.SoftTargetCrossEntropy'),
    ),
)
