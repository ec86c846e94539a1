# Copyright (c) addp_mm contributors. Apache-2.0.
# The linear protocol on a model of timm. The head sees the last map of a plain transformer, else
# the maps of all stages, resized to the finest one.
_base_ = './vit-base-p16.py'

model = dict(backbone=dict(_delete_=True, type='addp_mm.TimmBackbone', pretrained=True))
