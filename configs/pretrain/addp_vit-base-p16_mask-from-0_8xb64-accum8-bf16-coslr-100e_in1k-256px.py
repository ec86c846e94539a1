# Copyright (c) addp_mm contributors. Apache-2.0.
# Mask ratios from 0 to 1 instead of 0.5 to 1.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e_in1k-256px.py'

model = dict(schedule=dict(min_ratio=0.0))
