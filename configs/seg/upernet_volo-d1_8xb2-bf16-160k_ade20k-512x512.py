# Copyright (c) addp_mm contributors. Apache-2.0.
# UperNet with VOLO d1 on ADE20K. The settings of VOLO's authors are not published; the optimizer is
# that of their LV-ViT (see README.md).
_base_ = [
    '../_base_/models/upernet_volo-d1.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/seg_160k.py',
]

optim_wrapper = dict(optimizer=dict(lr=6e-5 * 16 / 16, weight_decay=0.01), paramwise_cfg=dict(layer_decay_rate=1.0))
