# Copyright (c) addp_mm contributors. Apache-2.0.
# mmsegmentation's own config, for comparison.
_base_ = 'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-769x769.py'
custom_imports = dict(imports=['addp_mm'])
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
