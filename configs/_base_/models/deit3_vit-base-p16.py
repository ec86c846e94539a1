# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that initialise its ADDPViT from DeiT III (arXiv 2204.07118), supervised on
# ImageNet-1k.
baseline = dict(
    layer_scale_init=1e-6, init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/deit/deit_3_base_224_1k.pth')
)
