# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './volo-d1_ft_8xb64-bf16-coslr-30e_in1k-384px.py'

model = dict(
    backbone=dict(arch='d3', img_size=448, drop_path_rate=0.5),
    head=dict(in_channels=512),
    init_cfg=dict(checkpoint=_base_.releases + 'd3_224_85.4.pth.tar'),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].transforms[0].scale = test_pipeline[1].scale = test_pipeline[2].crop_size = 448
train_dataloader = dict(batch_size=30, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=240)
