# Copyright (c) addp_mm contributors. Apache-2.0.
# VOLO of the nano ViT's size and resolution, from random weights: head, schedule and data are those
# of the nano ViT. The head takes the class token of class attention.
_base_ = './addp-vit-nano-p8_from-scratch_1xb32-fp32-300i_fashion-scenes-64px.py'

model = dict(backbone=dict(_delete_=True, type='addp_mm.VOLO', arch='nano', img_size=64, out_type='cls_token'))
