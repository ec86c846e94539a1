# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d1_token-label_8xb128-bf16-coslr-300e_in1k-224px.py'

model = dict(backbone=dict(arch='d5', drop_path_rate=0.75), head=dict(in_channels=768))
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=4, optimizer=dict(lr=8e-4 * 1024 / 1024))
