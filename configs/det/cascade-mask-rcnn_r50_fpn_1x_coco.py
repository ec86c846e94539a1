# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['addp_mm'])

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
