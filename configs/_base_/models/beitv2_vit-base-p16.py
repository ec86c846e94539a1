# Copyright (c) addp_mm contributors. Apache-2.0.
# Changes to a recipe that initialise its ADDPViT from BEiT v2 (arXiv 2208.06366), 1600 epochs on
# ImageNet-1k. Its relative positions, for 14 x 14 tokens, replace those of ViTDet. It has no
# absolute positions.
baseline = dict(
    use_abs_pos=False,
    use_rel_pos=False,
    use_rel_pos_table=True,
    layer_scale_init=0.1,
    init_cfg=dict(
        checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/beitv2_base_patch16_224_pt1k.pth'
    ),
)
