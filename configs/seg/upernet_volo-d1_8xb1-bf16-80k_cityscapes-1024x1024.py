# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 1024 px, as in the paper, with the optimizer of the ADE20K recipe.
_base_ = [
    '../_base_/models/upernet_volo-d1.py',
    '../_base_/datasets/cityscapes_1024x1024.py',
    '../_base_/schedules/seg_80k.py',
]

model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    backbone=dict(img_size=1024),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=(1024, 1024), stride=(768, 768)),
)
optim_wrapper = dict(optimizer=dict(lr=6e-5 * 8 / 16, weight_decay=0.01), paramwise_cfg=dict(layer_decay_rate=1.0))
