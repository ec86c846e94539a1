# Copyright (c) addp_mm contributors. Apache-2.0.
# Stride 16, the layout of the released tokenizer of MaskGIT, MAGE and ADDP (arXiv 2202.04200), by
# the recipe of vqgan_p16 without its perceptual loss, whose weights have to be at hand. Not
# measured.
_base_ = ['./tokenizer_small.py']
own_data = dict(batch_size=128, max_iters=150000, max_passes=200)

max_iters = 150000
model = dict(
    tokenizer=dict(_delete_=True, type='addp_mm.VQTokenizer'),
    mse_weight=0.0,
    quantize_from=0,
    restart_interval=1000,
    restart_until=max_iters // 4,
    discriminator=dict(num_layers=3),
    adversarial_weight=0.5,
    lecam_weight=0.0,
    schedule=dict(start=max_iters // 4, alone=1000, ramp=5000),
)
part = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4 * 128 / 128, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(tokenizer=part, discriminator=part)
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
default_hooks = dict(checkpoint=dict(interval=2500))
train_cfg = dict(max_iters=max_iters, val_interval=5000)
