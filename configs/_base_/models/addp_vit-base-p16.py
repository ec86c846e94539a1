# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP with a ViT-B/16 (arXiv 2306.05423). The released checkpoint also contains the tokenizer
# (MaskGIT's VQGAN) and the token predictor (MAGE ViT-B) of its training.
released = 'hf://Changyao/ADDP/addp-vit-base-16.pth'

model = dict(
    type='addp_mm.ADDP',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
    tokenizer=dict(
        type='addp_mm.VQTokenizer',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=released, prefix='tokenizer.', strict=True),
    ),
    predictor=dict(
        type='addp_mm.MaskedTokenPredictor',
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        decoder_num_layers=8,
        decoder_num_heads=16,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=released, prefix='predictor.', strict=True),
    ),
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='base',
        img_size=256,
        patch_size=16,
        out_type='raw',
        pre_norm=True,
        drop_rate=0.1,
        attn_drop_rate=0.1,
    ),
    neck=dict(type='addp_mm.TokenDecoder', in_dims=768, num_layers=8, num_heads=16, drop_rate=0.1),
    head=dict(
        type='addp_mm.TokenHead', in_dims=768, loss=dict(type='addp_mm.SoftTargetCrossEntropy', label_smoothing=0.1)
    ),
)
