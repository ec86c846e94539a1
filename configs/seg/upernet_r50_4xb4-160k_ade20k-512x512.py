# Copyright (c) addp_mm contributors. Apache-2.0.
# mmsegmentation's own config, for comparison.
_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['addp_mm'])
auto_scale_lr = dict(enable=False, base_batch_size=16)

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
