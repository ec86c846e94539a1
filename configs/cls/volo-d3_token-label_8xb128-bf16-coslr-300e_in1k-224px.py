# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d1_token-label_8xb128-bf16-coslr-300e_in1k-224px.py'

model = dict(backbone=dict(arch='d3', drop_path_rate=0.5), head=dict(in_channels=512))
optim_wrapper = dict(optimizer=dict(lr=1e-3 * 1024 / 1024))
