# Copyright (c) addp_mm contributors. Apache-2.0.
# Batch 4096: AdamW without weight decay of norms and biases. bfloat16 needs no loss scaling. A
# config adds the number of epochs and the gradient accumulation that gives a batch of 4096.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(type='AdamW', lr=1e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)

custom_hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval=5000, preview_images=16)]
auto_scale_lr = dict(enable=False, base_batch_size=4096)
