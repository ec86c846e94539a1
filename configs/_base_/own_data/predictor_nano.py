# Copyright (c) addp_mm contributors. Apache-2.0.
# The predictor of the nano recipes, trained on stored ids. The encoder drops half of the tokens
# (MAGE, arXiv 2211.09117).
_base_ = ['./runtime.py']
own_data = dict(batch_size=32, max_iters=3000, max_passes=1600)

model = dict(
    type='addp_mm.PredictorPretrain',
    tokenizer=None,
    predictor=dict(
        type='addp_mm.MaskedTokenPredictor',
        embed_dims=128,
        num_layers=4,
        num_heads=4,
        decoder_embed_dims=128,
        decoder_num_layers=2,
        decoder_num_heads=4,
        drop_rate=0.0,
    ),
    drop_ratio=0.5,
    codes_only=True,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end='0.0667 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.0667 * max_iters', end='max_iters'),
]
