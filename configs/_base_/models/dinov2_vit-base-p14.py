# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that start it from DINOv2 (arXiv 2304.07193), trained on LVD-142M. Its patches
# are 14 px wide, so maps and heads have 14/16 of the recipe's strides: 3.5, 7, 14, 28 and 56.
baseline = dict(
    img_size=896,
    patch_size=14,
    layer_scale_init=1e-5,
    init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth'),
)
