# Copyright (c) addp_mm contributors. Apache-2.0.
# Optimizer states are sharded over all processes (ZeRO stage 1, arXiv 1910.02054). DeepSpeed has
# AdamW by name; other optimizers of torch work too.
strategy = dict(
    type='addp_mm.ZeroStrategy', zero_optimization=dict(stage=1), config=dict(zero_allow_untested_optimizer=True)
)
