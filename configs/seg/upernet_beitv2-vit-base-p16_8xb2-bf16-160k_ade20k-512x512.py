# Copyright (c) addp_mm contributors. Apache-2.0.
# Drop path, learning rate and layer decay are those of BEiT v2's own UperNet.
_base_ = ['./upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py', '../_base_/models/beitv2_vit-base-p16.py']

model = dict(backbone=dict(_base_.baseline, drop_path_rate=0.15))
optim_wrapper = dict(optimizer=dict(lr=5e-5 * 16 / 16), paramwise_cfg=dict(layer_decay_rate=0.75))
