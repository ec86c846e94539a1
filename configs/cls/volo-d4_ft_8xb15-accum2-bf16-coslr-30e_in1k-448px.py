# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d3_ft_8xb30-bf16-coslr-30e_in1k-448px.py'

model = dict(
    backbone=dict(arch='d4'),
    head=dict(in_channels=768),
    init_cfg=dict(checkpoint=_base_.releases + 'd4_224_85.7.pth.tar'),
)
train_dataloader = dict(batch_size=15)
optim_wrapper = dict(accumulative_counts=2)
