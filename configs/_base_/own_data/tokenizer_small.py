# Copyright (c) addp_mm contributors. Apache-2.0.
# Stride 8 against a discriminator that starts once the codes stand still. Codes on the unit sphere
# of 32 dimensions (as ViT-VQGAN, arXiv 2110.04627). Widths and schedule lie between the nano recipe
# and vqgan_p16; not measured.
_base_ = ['./runtime.py']
own_data = dict(batch_size=64, max_iters=40000, max_passes=400)

max_iters = 40000
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
    quantize_from=1000,
    restart_interval=200,
    restart_until=int(0.4 * max_iters),
    discriminator=dict(type='addp_mm.PatchDiscriminator', num_layers=2),
    adversarial_weight=0.2,
    lecam_weight=0.001,
    schedule=dict(start=int(0.5 * max_iters), alone=500, ramp=2000),
)
part = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(constructor='addp_mm.PartsOptimWrapperConstructor', tokenizer=part, discriminator=part)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=1000, end=max_iters),
]
custom_hooks = [
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.ReconstructionPreviewHook', interval=2000, num_images=10),
    dict(type='addp_mm.AdversarialStartHook', action='lower', window=100, watch=5000),
    # an average over codes that are still drawn anew would lie between their places
    dict(type='EMAHook', momentum=0.001, begin_iter=int(0.4 * max_iters)),
]
default_hooks = dict(checkpoint=dict(interval=1000))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
