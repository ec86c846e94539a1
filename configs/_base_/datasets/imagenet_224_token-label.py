# Copyright (c) addp_mm contributors. Apache-2.0.
# The same with label maps for token labelling: the published ones, or those of your classifier. To
# write them: addp label-maps CONFIG CHECKPOINT data/imagenet/train --out data/imagenet/label_maps
_base_ = './imagenet_224_volo.py'

num_classes = 1000
load, augment = _base_.train_pipeline[:2], _base_.train_pipeline[2:-1]
train_pipeline = [
    *load,
    dict(
        type='addp_mm.WithTokenLabels',
        label_maps='data/imagenet/label_maps',
        images='data/imagenet/train',
        num_classes=num_classes,
        transforms=augment,
    ),
    dict(type='PackInputs', algorithm_keys=['token_labels']),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
