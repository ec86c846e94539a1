# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/evaluation/addp-vit-nano-p8_features.py',
    '../_base_/schedules/pretrain_nano.py',
]

max_iters = 12000
model = dict(
    type='addp_mm.TokenizerPretrain',
    tokenizer=_base_.tokenizer,
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
    quantize_from=400,
    restart_interval=100,
    restart_until=int(0.7 * max_iters),
)

train_dataloader = dict(batch_size=8)
val_evaluator = [
    dict(type='addp_mm.PeakSignalNoiseRatio'),
    dict(type='addp_mm.StructuralSimilarity'),
    dict(type='addp_mm.CodebookUsage', codebook_size=_base_.tokenizer.codebook_size),
]

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
custom_hooks = [
    dict(type='addp_mm.ReconstructionPreviewHook', interval=1000, num_images=10),
    dict(type='addp_mm.CodeRestartHook'),
]
train_cfg = dict(max_iters=max_iters, val_interval=1000)
val_cfg = dict()
test_dataloader = _base_.val_dataloader
test_evaluator = [*val_evaluator, dict(type='addp_mm.ReconstructionFID', extractor=_base_.extractor)]
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=16)
