# Copyright (c) addp_mm contributors. Apache-2.0.
# The predictor is MAGE ViT-L, as released with this encoder.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py'

released = 'hf://Changyao/ADDP/addp-vit-large-16.pth'
model = dict(
    tokenizer=dict(init_cfg=dict(checkpoint=released)),
    predictor=dict(embed_dims=1024, num_layers=24, num_heads=16, init_cfg=dict(checkpoint=released)),
    backbone=dict(arch='large'),
    neck=dict(in_dims=1024),
    head=dict(in_dims=1024),
)

train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=40, end=800, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=800)
