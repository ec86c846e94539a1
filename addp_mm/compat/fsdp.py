# Copyright (c) addp_mm contributors. Apache-2.0.
"""FSDPStrategy with a current PyTorch, and on the CPU."""

import functools
from types import SimpleNamespace
from typing import Any

from addp_mm.compat.device_kinds import device_kind
from addp_mm.compat.importing import replace_method


def patch_fsdp_strategy(module: Any) -> bool:
    """Pass the arguments of ``optim_state_dict_to_load`` by name when FSDPStrategy resumes.

    mmengine passes them by position, and torch 2.1 changed their order.

    Args:
        module: ``mmengine._strategy.fsdp``.

    Returns:
        Whether the model is passed as another argument.
    """
    if _model_is_passed_as_model(module):
        return False
    replace_method(module.FSDPStrategy, 'load_optim_state_dict', lambda _: _make_load(module))
    return True


def _make_load(module: Any):

    def load_optim_state_dict(self, state_dict: dict) -> None:
        loadable = module.FSDP.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(loadable)

    return load_optim_state_dict


def _model_is_passed_as_model(module: Any) -> bool:
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


def patch_fsdp_wrapper(module: Any) -> bool:
    """Make ``MMFullyShardedDataParallel`` use the CPU if mmengine trains there.

    Args:
        module: ``mmengine.model.wrappers.fully_sharded_distributed``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, module, *args, device_id=None, **kwargs):
            import torch

            if device_kind() == 'cpu':
                device_id = torch.device('cpu')
            original(self, module, *args, device_id=device_id, **kwargs)

        return __init__

    replace_method(module.MMFullyShardedDataParallel, '__init__', make)
    return True
