# Copyright (c) addp_mm contributors. Apache-2.0.
# Optimizer states and gradients are sharded over all processes (ZeRO stage 2, arXiv 1910.02054).
_base_ = './deepspeed_zero1.py'

strategy = dict(zero_optimization=dict(stage=2))
