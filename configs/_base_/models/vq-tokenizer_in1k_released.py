# Copyright (c) addp_mm contributors. Apache-2.0.
# MaskGIT's VQGAN (arXiv 2202.04200) from the released ADDP checkpoint: 256 px -> 16 x 16 tokens,
# 1024 codes.
tokenizer = dict(
    type='addp_mm.VQTokenizer',
    init_cfg=dict(
        type='addp_mm.Pretrained',
        checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth',
        prefix='tokenizer.',
        strict=True,
    ),
)
