# Copyright (c) addp_mm contributors. Apache-2.0.
# The tokenizer of vq-tokenizer_nano-p8 in a third of the steps, with a discriminator and a
# perceptual loss on features of the shipped ADDP ViT. The discriminator starts in the middle of the
# training, when the codes change little.
_base_ = ['vq-tokenizer_nano-p8_2xb8-fp32-12k_fashion-scenes-64px.py']

max_iters = 4000
model = dict(
    type='addp_mm.VQGANPretrain',
    mse_weight=2.0,
    restart_until=int(0.4 * max_iters),
    perceptual=dict(
        type='addp_mm.PerceptualLoss',
        backbone=dict(
            type='addp_mm.ADDPViT',
            arch='nano',
            img_size=64,
            patch_size=8,
            pre_norm=True,
            out_indices=(1, 3, 5),
            out_type='featmap',
            init_cfg=dict(
                type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'
            ),
        ),
    ),
    perceptual_weight=0.1,
    # receptive field of 34 px
    discriminator=dict(type='addp_mm.PatchDiscriminator', base_channels=32, num_layers=2),
    adversarial_weight=0.2,
    lecam_weight=0.001,
    schedule=dict(start=int(0.5 * max_iters), alone=100, ramp=400),
)

train_dataloader = dict(batch_size=16)

optimizer = dict(type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.0)
optim_wrapper = dict(
    _delete_=True,
    constructor='addp_mm.ComponentsOptimWrapperConstructor',
    tokenizer=dict(type='OptimWrapper', optimizer=optimizer, clip_grad=dict(max_norm=1.0)),
    discriminator=dict(type='OptimWrapper', optimizer=optimizer, clip_grad=dict(max_norm=1.0)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
custom_hooks = [
    dict(type='addp_mm.ReconstructionPreviewHook', interval=1000, num_images=10),
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.AdversarialStartHook', action='lower', window=50, watch=1500),
    # an average over codes that are still re-initialised would be between old and new values
    dict(type='EMAHook', momentum=0.005, begin_iter=int(0.4 * max_iters)),
]
