# Copyright (c) addp_mm contributors. Apache-2.0.
# The linear protocol on FashionScenes for backbones of full size. Scenes are resized from 64 px to
# 224 px, the size at which most of the weights were trained: patches of 16 px give maps of 14 x 14
# instead of 4 x 4, patches of 14 px 16 x 16, and windows of 7 x 7 fit into every stage.
_base_ = './fashion-scenes.py'

scale = (224, 224)
train_pipeline = [
    dict(type='addp_mm.SeedAugmentation'),
    dict(type='addp_mm.LoadImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# Labels are loaded after resizing: the metric compares them at their original size.
test_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

on_scenes = dict(data_preprocessor=dict(size=scale))
