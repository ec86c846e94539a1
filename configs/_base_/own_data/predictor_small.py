# Copyright (c) addp_mm contributors. Apache-2.0.
# Half as wide as MAGE ViT-B. Learning rate and steps are between the nano recipe and the published
# one. Not measured.
_base_ = ['./predictor_nano.py']
own_data = dict(batch_size=256, max_iters=40000, max_passes=1600)

model = dict(
    predictor=dict(
        embed_dims=384,
        num_layers=8,
        num_heads=6,
        decoder_embed_dims=384,
        decoder_num_layers=4,
        decoder_num_heads=6,
        drop_rate=0.1,
    )
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end='0.05 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.05 * max_iters', end='max_iters'),
]
default_hooks = dict(checkpoint=dict(interval='0.025 * max_iters'))
