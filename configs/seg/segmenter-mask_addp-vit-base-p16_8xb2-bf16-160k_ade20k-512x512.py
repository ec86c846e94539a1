# Copyright (c) addp_mm contributors. Apache-2.0.
# Segmenter's head on ADDP's ViT-B, with UperNet's training: the published SGD settings are for
# supervised ViTs.
_base_ = [
    '../_base_/models/segmenter-mask_addp-vit-base-p16.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/seg_160k.py',
]
