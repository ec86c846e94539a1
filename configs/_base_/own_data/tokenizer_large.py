# Copyright (c) addp_mm contributors. Apache-2.0.
# The tokenizer of size base, trained longer, as published ADDP of both sizes shares one tokenizer.
_base_ = ['./tokenizer_base.py']
own_data = dict(batch_size=128, max_iters=300000, max_passes=200)

max_iters = 300000
model = dict(restart_until=max_iters // 4, schedule=dict(start=max_iters // 4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=2000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2000, end=max_iters),
]
custom_hooks = [
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.ReconstructionPreviewHook', interval=5000, num_images=10),
    dict(type='addp_mm.AdversarialStartHook', action='lower', window=500, watch=20000),
    dict(type='EMAHook', momentum=1e-4, begin_iter=max_iters // 4),
]
train_cfg = dict(max_iters=max_iters)
