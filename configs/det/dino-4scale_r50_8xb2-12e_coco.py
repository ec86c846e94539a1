# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['addp_mm'])

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
