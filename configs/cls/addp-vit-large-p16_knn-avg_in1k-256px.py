# Copyright (c) addp_mm contributors. Apache-2.0.
# The feature is the mean of the patch tokens instead of the class token.
_base_ = './addp-vit-base-p16_knn-avg_in1k-256px.py'

model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth')))
