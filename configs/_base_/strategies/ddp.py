# Copyright (c) addp_mm contributors. Apache-2.0.
# Each process has the whole model, as without a strategy. With this strategy you can set arguments
# of the wrapper.
strategy = dict(type='DDPStrategy', model_wrapper=dict(type='MMDistributedDataParallel', broadcast_buffers=False))
