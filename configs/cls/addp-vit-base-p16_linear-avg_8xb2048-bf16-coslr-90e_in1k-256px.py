# Copyright (c) addp_mm contributors. Apache-2.0.
# The feature is the mean of the patch tokens instead of the class token.
_base_ = './addp-vit-base-p16_linear-cls_8xb2048-bf16-coslr-90e_in1k-256px.py'

model = dict(backbone=dict(out_type='avg_featmap'))
