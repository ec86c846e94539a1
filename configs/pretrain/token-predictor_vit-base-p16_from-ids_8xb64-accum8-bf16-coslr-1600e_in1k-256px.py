# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE ViT-B (arXiv 2211.09117) with its released recipe (github.com/LTH14/mage), on stored ids.
_base_ = [
    '../_base_/models/vq-tokenizer_in1k_released.py',
    '../_base_/datasets/imagenet_256_tokens.py',
    '../_base_/schedules/pretrain_imagenet.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    type='addp_mm.PredictorPretrain',
    tokenizer=None,
    predictor=dict(
        type='addp_mm.MaskedTokenPredictor',
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        decoder_num_layers=8,
        decoder_num_heads=16,
        drop_rate=0.1,
    ),
    drop_ratio=0.5,
    shared_mask_ratio=True,
    codes_only=True,
)

train_dataloader = dict(dataset=dict(tokenizer=_base_.tokenizer))

optim_wrapper = dict(optimizer=dict(lr=1.5e-4 * 4096 / 256), accumulative_counts=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=40, end=1600, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=1600)

# replaces the hook of the base, which is for ADDP
custom_hooks = []
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
randomness = dict(seed=0, diff_rank_seed=True)
