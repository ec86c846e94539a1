# Copyright (c) addp_mm contributors. Apache-2.0.
# A small ResNet-18 of the garments, as the reward of generated ones
# (addp_mm.alignment.rewards.ClassifierReward). It shares no weights with ADDP. Generated garments
# have soft outlines and other colours, so half of the training images are blurred, and all change
# their colours. Label smoothing keeps log-probabilities apart that would otherwise all be near 0.
_base_ = ['../_base_/datasets/fashion_scenes_cls.py', '../_base_/default_runtime.py']
default_scope = 'mmpretrain'

channels, max_iters = 10, 2000
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=channels,
        base_channels=channels,
        strides=(1, 2, 2, 1),  # a last map of 4 x 4 positions
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=8 * channels,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

train_pipeline = [
    dict(type='addp_mm.SeedAugmentation'),
    dict(type='addp_mm.LoadImage'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.7, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0.5, backend='cv2'),
    dict(type='GaussianBlur', prob=0.5, magnitude_range=(0.3, 2.0), magnitude_std='inf'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict()
test_cfg = dict()
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=64)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
randomness = dict(seed=0)
