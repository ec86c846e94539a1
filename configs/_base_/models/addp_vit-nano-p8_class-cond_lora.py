# Copyright (c) addp_mm contributors. Apache-2.0.
# The shipped class-conditional nano generator, with LoRA adapters in backbone and token decoder.
_base_ = ['./vq-tokenizer_nano-p8.py', './token-predictor_nano-p8_class-cond.py']

lora = dict(rank=8, targets=('qkv', 'proj', 'fc1', 'fc2'))
checkpoint = 'addp_mm://addp_nano-p8_class-cond.safetensors'
generator = dict(
    type='addp_mm.ADDP',
    tokenizer=dict(
        **_base_.tokenizer,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://vq-tokenizer_nano-p8.safetensors', strict=True),
    ),
    predictor=dict(
        **_base_.predictor,
        init_cfg=dict(
            type='addp_mm.Pretrained',
            checkpoint='addp_mm://token-predictor_nano-p8_class-cond.safetensors',
            strict=True,
        ),
    ),
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='raw',
        pre_norm=True,
        lora=lora,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(
        type='addp_mm.TokenDecoder',
        num_tokens=64,
        in_dims=128,
        num_layers=2,
        num_heads=4,
        drop_rate=0.0,
        token_space=_base_.token_space,
        lora=lora,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='neck.'),
    ),
    head=dict(
        type='addp_mm.TokenHead',
        in_dims=128,
        token_space=_base_.token_space,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='head.', strict=True),
    ),
)
