# Copyright (c) addp_mm contributors. Apache-2.0.
# 224 px with patches of 14 px: as many tokens as 256 px with patches of 16 px.
_base_ = [
    './addp-vit-base-p16_linear-cls_8xb2048-bf16-coslr-90e_in1k-256px.py',
    '../_base_/models/dinov2_vit-base-p14.py',
]

model = dict(backbone=dict(_base_.baseline, img_size=224, pre_norm=False))

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = 224
test_pipeline[1].scale = 224
test_pipeline[2].crop_size = 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
