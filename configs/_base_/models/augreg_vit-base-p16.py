# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe's ADDPViT that start it from AugReg (arXiv 2106.10270), supervised on
# ImageNet-21k. Its images lay in [-1, 1]: give the data_preprocessor mean and std 127.5.
baseline = dict(init_cfg=dict(checkpoint='hf://timm/vit_base_patch16_224.augreg_in21k/model.safetensors'))
