# Copyright (c) addp_mm contributors. Apache-2.0.
# The pre-trained backbone is frozen but for LoRA adapters (arXiv 2106.09685).
_base_ = './mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'

model = dict(backbone=dict(lora=dict(rank=4, alpha=8, targets=('qkv', 'proj', 'fc1', 'fc2'))))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
