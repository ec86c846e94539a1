# Copyright (c) addp_mm contributors. Apache-2.0.
# mmsegmentation's own config, for comparison.
_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['addp_mm'])

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
