# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that initialise its ADDPViT from MAE (arXiv 2111.06377), 1600 epochs on
# ImageNet-1k.
baseline = dict(init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth'))
