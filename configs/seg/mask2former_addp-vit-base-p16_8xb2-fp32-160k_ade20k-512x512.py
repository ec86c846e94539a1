# Copyright (c) addp_mm contributors. Apache-2.0.
# Mask2Former on ADDP's ViT-B: head, gradient clipping and scales of Mask2Former, learning rates and
# layer decay of UperNet.
_base_ = [
    '../_base_/models/mask2former-seg_addp-vit-base-p16.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/seg_160k.py',
]

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[int(512 * tenths / 10) for tenths in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=2048,
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# The CUDA kernel of deformable attention supports only float32 and float16.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4 * 16 / 16, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.0,
        embed_decay_mult=0.0,
        custom_keys=dict(
            query_embed=dict(decay_mult=0.0), query_feat=dict(decay_mult=0.0), level_embed=dict(decay_mult=0.0)
        ),
    ),
)
