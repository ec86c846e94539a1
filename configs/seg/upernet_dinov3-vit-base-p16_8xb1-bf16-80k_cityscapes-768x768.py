# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./upernet_addp-vit-base-p16_8xb1-bf16-80k_cityscapes-768x768.py', '../_base_/models/dinov3_vit-base-p16.py']

model = dict(
    backbone=dict(_delete_=True, out_indices=(3, 5, 7, 11), final_norm=False, drop_path_rate=0.1, **_base_.baseline)
)
