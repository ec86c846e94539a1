# Copyright (c) addp_mm contributors. Apache-2.0.
# 224 px with patches of 14 px: as many tokens as 256 px with patches of 16 px.
_base_ = ['./addp-vit-base-p16_knn-cls_in1k-256px.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(backbone=dict(_base_.baseline, img_size=224, pre_norm=False))

test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 224
test_pipeline[2].crop_size = 224
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_cfg = dict(bank_dataloader=dict(dataset=dict(pipeline=test_pipeline)))
