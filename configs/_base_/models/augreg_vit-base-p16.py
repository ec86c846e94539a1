# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that initialise its ADDPViT from AugReg (arXiv 2106.10270), supervised on
# ImageNet-21k. It expects images in [-1, 1]: set mean and std of the data_preprocessor to 127.5.
baseline = dict(init_cfg=dict(checkpoint='hf://timm/vit_base_patch16_224.augreg_in21k/model.safetensors'))
