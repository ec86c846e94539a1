# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that initialise its ADDPViT from DINOv2 (arXiv 2304.07193), trained on
# LVD-142M. Its patches have 14 px, so maps and heads have 14/16 of the recipe's strides: 3.5, 7,
# 14, 28, 56.
baseline = dict(
    img_size=896,
    patch_size=14,
    layer_scale_init=1e-5,
    init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth'),
)
