# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_ms-poly-3x_coco.py'
custom_imports = dict(imports=['addp_mm'])

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
