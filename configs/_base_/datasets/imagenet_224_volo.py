# Copyright (c) addp_mm contributors. Apache-2.0.
# ImageNet at 224 px with VOLO's augmentation (arXiv 2106.13112), which is that of MAE's
# fine-tuning: RandAugment(9, 0.5), erasing. Test images: 96 % of the shorter side.
_base_ = './imagenet_256_finetune.py'

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[2].crop_size = 224
test_pipeline[1].scale = round(224 / 0.96)

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
