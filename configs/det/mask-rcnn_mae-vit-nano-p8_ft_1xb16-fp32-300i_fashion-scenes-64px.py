# Copyright (c) addp_mm contributors. Apache-2.0.
# From the weights of MAE, which has no norm after the embedding.
_base_ = './mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'

model = dict(
    backbone=dict(
        pre_norm=False,
        init_cfg=dict(_delete_=True, type='addp_mm.Pretrained', checkpoint='addp_mm://mae_nano-p8.safetensors'),
    )
)
