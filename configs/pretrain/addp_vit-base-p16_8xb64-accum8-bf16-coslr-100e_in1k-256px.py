# Copyright (c) addp_mm contributors. Apache-2.0.
# The baseline of the ablations in this folder.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=10, end=100, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100)
