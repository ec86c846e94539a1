# Copyright (c) addp_mm contributors. Apache-2.0.
# VOLO d1 (arXiv 2106.13112) for dense prediction: maps of strides 8, 16, 16 and 16, and the neck
# that resizes them to 4, 8, 16 and 32. Weights: ImageNet-1k at 224 px.
backbone = dict(
    type='addp_mm.VOLO',
    arch='d1',
    img_size=512,
    out_type='featmap',
    out_indices=(0, 1, 2, 3),
    final_norm=False,
    drop_path_rate=0.1,
    init_cfg=dict(
        type='addp_mm.Pretrained',
        checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d1_224_84.2.pth.tar',
    ),
)
neck = dict(type='addp_mm.FourScaleNeck', embed_dims=[192, 384, 384, 384], strides=(8, 16, 16, 16))
