# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./addp-vit-base-p16_ft_8xb128-bf16-coslr-100e_in1k-256px.py', '../_base_/models/beitv2_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
