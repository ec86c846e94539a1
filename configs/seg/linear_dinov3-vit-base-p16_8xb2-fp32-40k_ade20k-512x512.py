# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/linear_seg/dinov3-vit-base-p16.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/seg_linear_40k.py',
]
