# Copyright (c) addp_mm contributors. Apache-2.0.
# The predictor's dropout is active for the targets, as in the published training.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e_in1k-256px.py'

model = dict(predictor=dict(train_dropout=True))
