# Copyright (c) addp_mm contributors. Apache-2.0.
# DINOv3 has no windows: attention is global in every block. `with_cp` stores only the input of each
# block, so that images of 1333 x 800 px fit into the memory of small GPUs.
_base_ = ['./mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-1x_coco.py', '../_base_/models/dinov3_vit-base-p16.py']

model = dict(
    backbone=dict(
        _delete_=True, out_indices=(2, 5, 8, 11), final_norm=False, drop_path_rate=0.1, with_cp=True, **_base_.baseline
    )
)
