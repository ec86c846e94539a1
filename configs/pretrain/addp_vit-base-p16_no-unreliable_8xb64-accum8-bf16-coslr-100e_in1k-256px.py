# Copyright (c) addp_mm contributors. Apache-2.0.
# Masked positions are decoded from the mean code instead of the predictor's expected latents.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e_in1k-256px.py'

model = dict(unreliable_tokens=False)
