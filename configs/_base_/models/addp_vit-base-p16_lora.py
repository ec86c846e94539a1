# Copyright (c) addp_mm contributors. Apache-2.0.
# The released ADDP ViT-B/16 as a generator, with LoRA adapters in backbone and token decoder. Write
# its file once, after a download of hf://Changyao/ADDP/addp-vit-base-16.pth:
# addp convert published-addp addp-vit-base-16.pth work_dirs/addp-vit-base-p16.safetensors
checkpoint = 'work_dirs/addp-vit-base-p16.safetensors'
lora = dict(rank=16, targets=('qkv', 'proj', 'fc1', 'fc2'))
generator = dict(
    type='addp_mm.ADDP',
    tokenizer=dict(
        type='addp_mm.VQTokenizer',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='tokenizer.', strict=True),
    ),
    predictor=dict(
        type='addp_mm.MaskedTokenPredictor',
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        decoder_num_layers=8,
        decoder_num_heads=16,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='predictor.', strict=True),
    ),
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='base',
        img_size=256,
        patch_size=16,
        out_type='raw',
        pre_norm=True,
        lora=lora,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(
        type='addp_mm.TokenDecoder',
        in_dims=768,
        num_layers=8,
        num_heads=16,
        lora=lora,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='neck.'),
    ),
    head=dict(
        type='addp_mm.TokenHead',
        in_dims=768,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix='head.', strict=True),
    ),
)
