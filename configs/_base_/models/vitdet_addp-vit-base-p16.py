# Copyright (c) addp_mm contributors. Apache-2.0.
# ViT-B as in ViTDet (arXiv 2203.16527): windows of 14 x 14 tokens, four blocks with global
# attention, relative positions, no class token, no final norm. `with_cp` stores only the input of
# each block and computes the block again in the backward pass. It costs one more forward pass of
# the ViT, but images of 1024 px fit into the memory of small GPUs.
norm_cfg = dict(type='addp_mm.LN2d', eps=1e-6)
backbone = dict(
    type='addp_mm.ADDPViT',
    arch='base',
    img_size=1024,
    patch_size=16,
    out_type='featmap',
    with_cls_token=False,
    final_norm=False,
    window_size=14,
    global_blocks=(2, 5, 8, 11),
    use_rel_pos=True,
    drop_path_rate=0.1,
    with_cp=True,
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth'),
)
neck = dict(type='addp_mm.SimpleFPN', in_channels=768, num_outs=5)
