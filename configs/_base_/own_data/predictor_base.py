# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE ViT-B (arXiv 2211.09117) with its rate at a quarter of its batch, and fewer steps.
_base_ = ['./predictor_nano.py']
own_data = dict(batch_size=1024, max_iters=150000, max_passes=1600)

max_iters = 150000
model = dict(
    predictor=dict(
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        decoder_embed_dims=768,
        decoder_num_layers=8,
        decoder_num_heads=16,
        drop_rate=0.1,
    ),
    shared_mask_ratio=True,
)
optim_wrapper = dict(optimizer=dict(lr=1.5e-4 * 1024 / 256))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=5000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=2500))
train_cfg = dict(max_iters=max_iters)
