# Copyright (c) addp_mm contributors. Apache-2.0.
# Fine-tuning of the published weights at 384 px, with label maps and the ground truth.
_base_ = [
    '../_base_/models/classifier_volo-d1.py',
    '../_base_/datasets/imagenet_224_token-label.py',
    '../_base_/schedules/volo_finetune_30e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

releases = 'https://github.com/sail-sg/volo/releases/download/volo_1/'
model = dict(
    backbone=dict(img_size=384),
    head=dict(loss=dict(with_ground_truth=True)),
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint=releases + 'd1_224_84.2.pth.tar', strict=True),
)

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].transforms[0].scale = test_pipeline[1].scale = test_pipeline[2].crop_size = 384
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
randomness = dict(seed=0, diff_rank_seed=True)
