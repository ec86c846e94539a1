# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d3_ft_8xb30-bf16-coslr-30e_in1k-448px.py'

model = dict(
    backbone=dict(arch='d5', img_size=512, drop_path_rate=0.75),
    head=dict(in_channels=768),
    init_cfg=dict(checkpoint=_base_.releases + 'd5_224_86.10.pth.tar'),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].transforms[0].scale = test_pipeline[1].scale = test_pipeline[2].crop_size = 512
train_dataloader = dict(batch_size=10, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=3)
