# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE ViT-B (arXiv 2211.09117) with a quarter of its batch, a learning rate scaled accordingly, and
# fewer steps. Not measured.
_base_ = ['./predictor_nano.py']
own_data = dict(batch_size=1024, max_iters=150000, max_passes=1600)

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
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end='0.0333 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.0333 * max_iters', end='max_iters'),
]
default_hooks = dict(checkpoint=dict(interval='0.0167 * max_iters'))
