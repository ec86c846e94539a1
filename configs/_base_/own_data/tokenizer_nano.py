# Copyright (c) addp_mm contributors. Apache-2.0.
# 2.3 M parameters, stride 8, trained by reconstruction only, for small images and CPUs. The recipe
# of the shipped tokenizer with more codes and fewer steps.
_base_ = ['./runtime.py']
own_data = dict(batch_size=16, max_iters=4000, max_passes=1600)

model = dict(
    type='addp_mm.TokenizerPretrain',
    tokenizer=dict(
        type='addp_mm.VQTokenizer',
        stem_stride=4,
        base_channels=64,
        channel_mults=(1, 2),
        num_mid_blocks=1,
        codebook_size=1024,
        embed_dims=8,
        normalize_codes=True,
        shortcut_from='input',
    ),
    quantize_from='0.1 * max_iters',
    restart_interval='0.025 * max_iters',
    restart_until='0.7 * max_iters',
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end='0.05 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.05 * max_iters', end='max_iters'),
]
custom_hooks = [
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.ReconstructionPreviewHook', interval='0.25 * max_iters', num_images=10),
]
train_cfg = dict(val_interval='0.25 * max_iters')
