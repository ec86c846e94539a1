# Copyright (c) addp_mm contributors. Apache-2.0.
# Token labelling at nano scale, with VOLO's head. Label maps of a nano classifier:
# addp label-maps addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px CHECKPOINT \
#   data/fashion_scenes/objects/train --out data/fashion_scenes/label_maps
_base_ = './volo-nano_from-scratch_1xb32-fp32-300i_fashion-scenes-64px.py'

model = dict(
    backbone=dict(out_type='raw', mix_token=True),
    head=dict(
        _delete_=True,
        type='addp_mm.VOLOHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='addp_mm.TokenLabelLoss', with_ground_truth=True),
    ),
)

load, augment = _base_.train_pipeline[:2], _base_.train_pipeline[2:-1]
train_pipeline = [
    *load,
    dict(
        type='addp_mm.WithTokenLabels',
        label_maps='data/fashion_scenes/label_maps',
        images='data/fashion_scenes/objects/train',
        num_classes=10,
        patch_size=8,
        transforms=augment,
    ),
    dict(type='PackInputs', algorithm_keys=['token_labels']),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
