# Copyright (c) addp_mm contributors. Apache-2.0.
# LoRA (arXiv 2106.09685): the backbone is frozen but for adapters in its attentions. They have the
# learning rate of the heads, without layer decay.
_base_ = './mask-rcnn_dinov3-vit-base-p16_fpn_8xb2-bf16-1x_coco.py'

model = dict(backbone=dict(drop_path_rate=0.0, lora=dict(rank=8, alpha=16, targets=('qkv', 'proj'))))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
