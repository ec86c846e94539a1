# Copyright (c) addp_mm contributors. Apache-2.0.
# The targets are the image's own tokens instead of the predictor's probabilities.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e_in1k-256px.py'

model = dict(hard_target=True)
