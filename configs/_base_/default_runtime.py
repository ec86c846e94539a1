# Copyright (c) addp_mm contributors. Apache-2.0.
# Runtime of all configs. Detection and segmentation set their scope and visualizer in
# det_runtime.py and seg_runtime.py. If a config keeps the plain `Visualizer`, tools/train.py and
# tools/test.py choose one.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # validation at the iteration, like the losses of training
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='addp_mm.CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    random_state=dict(type='addp_mm.RandomStateHook'),
    guard=dict(type='addp_mm.TrainingGuardHook'),
    broken_samples=dict(type='addp_mm.BrokenSamplesHook'),
)

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
