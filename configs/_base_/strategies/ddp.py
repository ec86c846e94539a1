# Copyright (c) addp_mm contributors. Apache-2.0.
# Each process holds the whole model. Runner does the same without a strategy; here you can set
# arguments of the wrapper.
strategy = dict(type='DDPStrategy', model_wrapper=dict(type='MMDistributedDataParallel', broadcast_buffers=False))
