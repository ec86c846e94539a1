# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/features_addp-vit-base-p16.py',
    '../_base_/datasets/imagenet_256_knn.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'
