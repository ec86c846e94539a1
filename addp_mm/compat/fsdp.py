# Copyright (c) addp_mm contributors. Apache-2.0.
"""FSDPStrategy: resume on a current PyTorch, and the CPU as a device."""

import functools
from types import ModuleType, SimpleNamespace

from addp_mm.compat.importing import replace_method


def mend_fsdp_strategy(module: ModuleType) -> None:
    """Resume the optimizer whatever the order of ``optim_state_dict_to_load``'s arguments.

    torch 2.1 changed that order; mmengine passes them by position. Applied to
    ``mmengine._strategy.fsdp`` where the model does not arrive as the model.
    """
    if not _arguments_arrive(module):
        replace_method(module.FSDPStrategy, 'load_optim_state_dict', lambda original: _make_load(module))


def _make_load(module: ModuleType):

    def load_optim_state_dict(self, state_dict: dict) -> None:
        loadable = module.FSDP.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(loadable)

    return load_optim_state_dict


def _arguments_arrive(module: ModuleType) -> bool:
    original = module.FSDP
    seen = {}

    @functools.wraps(original.optim_state_dict_to_load)
    def record(*args, **kwargs):
        import inspect

        seen.update(inspect.signature(original.optim_state_dict_to_load).bind(*args, **kwargs).arguments)
        return {}

    optim_wrapper = SimpleNamespace(optimizer='optimizer', load_state_dict=lambda state: None)
    module.FSDP = SimpleNamespace(optim_state_dict_to_load=record)
    try:
        module.FSDPStrategy.load_optim_state_dict(SimpleNamespace(model='model', optim_wrapper=optim_wrapper), {})
    finally:
        module.FSDP = original
    return seen['model'] == 'model'


def mend_fsdp_wrapper(module: ModuleType) -> None:
    """Give ``MMFullyShardedDataParallel`` the CPU as its device where there is no accelerator.

    Applied to ``mmengine.model.wrappers.fully_sharded_distributed``.
    """

    def make(original):

        def __init__(self, module, *args, device_id=None, **kwargs):
            import torch

            from addp_mm.compat.distributed import has_accelerator

            if not has_accelerator():
                device_id = torch.device('cpu')
            original(self, module, *args, device_id=device_id, **kwargs)

        return __init__

    replace_method(module.MMFullyShardedDataParallel, '__init__', make)
