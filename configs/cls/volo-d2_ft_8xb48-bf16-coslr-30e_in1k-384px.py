# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d1_ft_8xb64-bf16-coslr-30e_in1k-384px.py'

model = dict(
    backbone=dict(arch='d2', drop_path_rate=0.2),
    head=dict(in_channels=512),
    init_cfg=dict(checkpoint=_base_.releases + 'd2_224_85.2.pth.tar'),
)
train_dataloader = dict(batch_size=48)
auto_scale_lr = dict(base_batch_size=384)
