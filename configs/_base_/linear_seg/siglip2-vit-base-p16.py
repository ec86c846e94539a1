# Copyright (c) addp_mm contributors. Apache-2.0.
# It expects images in [-1, 1].
_base_ = './timm.py'

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(model='vit_base_patch16_siglip_512.v2_webli', frozen_stages=12),
)
