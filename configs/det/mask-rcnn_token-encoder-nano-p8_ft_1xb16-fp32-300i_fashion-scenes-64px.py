# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    './mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py',
    '../_base_/models/token-encoder_nano-p8.py',
]
model = dict(backbone=dict(_delete_=True, **_base_.token_encoder))
