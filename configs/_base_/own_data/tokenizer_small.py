# Copyright (c) addp_mm contributors. Apache-2.0.
# Stride 8, with a discriminator that starts after the last code was re-initialised. Codes are unit
# vectors of 32 dimensions (as ViT-VQGAN, arXiv 2110.04627). Widths and schedule are between the
# nano recipe and vqgan_p16. Not measured.
_base_ = ['./runtime.py']
own_data = dict(batch_size=64, max_iters=40000, max_passes=400)

model = dict(
    type='addp_mm.VQGANPretrain',
    tokenizer=dict(
        type='addp_mm.VQTokenizer',
        stem_stride=2,
        base_channels=96,
        channel_mults=(1, 2, 2),
        num_mid_blocks=1,
        codebook_size=1024,
        embed_dims=32,
        normalize_codes=True,
        shortcut_from='input',
    ),
    mse_weight=2.0,
    quantize_from='0.025 * max_iters',
    restart_interval='0.005 * max_iters',
    restart_until='0.4 * max_iters',
    discriminator=dict(type='addp_mm.PatchDiscriminator', num_layers=2),
    adversarial_weight=0.2,
    lecam_weight=0.001,
    schedule=dict(start='0.5 * max_iters', alone='0.0125 * max_iters', ramp='0.05 * max_iters'),
)
part = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(constructor='addp_mm.ComponentsOptimWrapperConstructor', tokenizer=part, discriminator=part)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end='0.025 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.025 * max_iters', end='max_iters'),
]
custom_hooks = [
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.ReconstructionPreviewHook', interval='0.05 * max_iters', num_images=10),
    dict(type='addp_mm.AdversarialStartHook', action='lower', window='0.0025 * max_iters', watch='0.125 * max_iters'),
    # The average starts when codes are no longer re-initialised.
    dict(type='EMAHook', momentum='40 / max_iters', begin_iter='0.4 * max_iters'),
]
default_hooks = dict(checkpoint=dict(interval='0.025 * max_iters'))
train_cfg = dict(val_interval='0.05 * max_iters')
