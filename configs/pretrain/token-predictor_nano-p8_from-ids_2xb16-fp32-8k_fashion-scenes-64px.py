# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE's training (arXiv 2211.09117) on stored ids: the encoder drops half of the tokens, the loss
# is over the codes.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8_released.py',
    '../_base_/models/token-predictor_nano-p8.py',
    '../_base_/datasets/fashion_scenes_tokens.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

max_iters = 8000
model = dict(
    type='addp_mm.PredictorPretrain', tokenizer=None, predictor=_base_.predictor, drop_ratio=0.5, codes_only=True
)

train_dataloader = dict(batch_size=16, dataset=dict(tokenizer=_base_.tokenizer))
test_dataloader = dict(dataset=dict(tokenizer=_base_.tokenizer))
test_evaluator = dict(type='addp_mm.MaskedTokenAccuracy')
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=32)
randomness = dict(seed=0)
