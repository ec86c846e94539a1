# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8.py',
    '../_base_/models/token-predictor_nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

max_iters = 8000
model = dict(
    type='addp_mm.PredictorPretrain',
    tokenizer=dict(
        **_base_.tokenizer,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://vq-tokenizer_nano-p8.safetensors', strict=True),
    ),
    predictor=_base_.predictor,
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
)

train_dataloader = dict(batch_size=16)
val_evaluator = dict(type='addp_mm.MaskedTokenAccuracy')

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
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
val_cfg = dict()
test_dataloader = _base_.val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=32)
randomness = dict(seed=0)
