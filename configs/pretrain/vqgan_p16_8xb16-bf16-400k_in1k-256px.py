# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/vqgan_p16.py',
    '../_base_/datasets/imagenet_256_pretrain.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

max_iters = 400000  # 40 epochs
model = dict(restart_interval=1000, restart_until=max_iters // 4, schedule=dict(start=20000, alone=1000, ramp=5000))

train_dataloader = dict(batch_size=16, sampler=dict(type='addp_mm.ResumableInfiniteSampler'))
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet/',
        split='val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=256),
            dict(type='PackInputs'),
        ],
    ),
)
val_evaluator = [dict(type='addp_mm.PeakSignalNoiseRatio'), dict(type='addp_mm.CodebookUsage', codebook_size=1024)]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optimizer = dict(type='AdamW', lr=1e-4 * 128 / 128, betas=(0.9, 0.95), weight_decay=0.0)
part = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=optimizer,
    clip_grad=dict(max_norm=1.0),
)
optim_wrapper = dict(constructor='addp_mm.ComponentsOptimWrapperConstructor', tokenizer=part, discriminator=part)
custom_hooks = [
    dict(type='addp_mm.ReconstructionPreviewHook', interval=5000),
    dict(type='addp_mm.CodeRestartHook'),
    dict(type='addp_mm.AdversarialStartHook', action='rollback', window=500, watch=20000),
    # an average over codes that are still re-initialised would be between old and new values
    dict(type='EMAHook', momentum=1e-4, begin_iter=max_iters // 4),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10000)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=128)
randomness = dict(seed=0, diff_rank_seed=True)
