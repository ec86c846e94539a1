# Copyright (c) addp_mm contributors. Apache-2.0.
# UperNet with ADDP's ViT-B on ADE20K: 8 GPUs with 2 images each, AdamW 1e-4, layer decay 0.65
# (MAE's recipe).
_base_ = [
    '../_base_/models/upernet_addp-vit-base-p16.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/seg_160k.py',
]
