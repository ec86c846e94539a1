# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/linear_seg/augreg-vit-base-p16.py',
    '../_base_/datasets/cityscapes_512x512.py',
    '../_base_/schedules/seg_linear_40k.py',
]

model = dict(decode_head=dict(num_classes=19))
