# Copyright (c) addp_mm contributors. Apache-2.0.
# Stride 16, the layout of the released tokenizer of MaskGIT, MAGE and ADDP (arXiv 2202.04200). The
# recipe of vqgan_p16 without its perceptual loss, which needs pre-trained weights. Not measured.
_base_ = ['./tokenizer_small.py']
own_data = dict(batch_size=128, max_iters=150000, max_passes=200)

model = dict(
    tokenizer=dict(_delete_=True, type='addp_mm.VQTokenizer'),
    mse_weight=0.0,
    quantize_from=0,
    restart_interval='0.00667 * max_iters',
    restart_until='0.25 * max_iters',
    discriminator=dict(num_layers=3),
    adversarial_weight=0.5,
    lecam_weight=0.0,
    schedule=dict(start='0.25 * max_iters', alone='0.00667 * max_iters', ramp='0.0333 * max_iters'),
)
part = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4 * 128 / 128, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(tokenizer=part, discriminator=part)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end='0.0133 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.0133 * max_iters', end='max_iters'),
]
custom_hooks = [
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.ReconstructionPreviewHook', interval='0.0333 * max_iters', num_images=10),
    dict(type='addp_mm.AdversarialStartHook', action='lower', window='0.00333 * max_iters', watch='0.133 * max_iters'),
    dict(type='EMAHook', momentum='15 / max_iters', begin_iter='0.25 * max_iters'),
]
default_hooks = dict(checkpoint=dict(interval='0.0167 * max_iters'))
train_cfg = dict(val_interval='0.0333 * max_iters')
