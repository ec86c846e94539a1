# Copyright (c) addp_mm contributors. Apache-2.0.
# Weights, gradients and optimizer states are sharded over all processes by blocks (FSDP, arXiv
# 2304.11277).
strategy = dict(
    type='addp_mm.ShardedStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', sharding_strategy='FULL_SHARD'),
    state_dict_cfg='full',
)
