# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/linear_seg/dinov2-vit-small-p14.py',
    '../_base_/datasets/cityscapes_518x518.py',
    '../_base_/schedules/seg_linear_40k.py',
]

model = dict(decode_head=dict(num_classes=19))
