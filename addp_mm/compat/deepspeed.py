# Copyright (c) addp_mm contributors. Apache-2.0.
"""DeepSpeedStrategy with a current DeepSpeed."""

from importlib import import_module
from types import ModuleType
from typing import Any

from addp_mm.compat.importing import replace

_OPTIMIZERS = {
    'deepspeed.ops.adam': ('DeepSpeedCPUAdam', 'FusedAdam'),
    'deepspeed.ops.lamb': ('FusedLamb',),
    'deepspeed.runtime.fp16.onebit': ('OnebitAdam', 'OnebitLamb', 'ZeroOneAdam'),
}


def patch_deepspeed_optimizers(module: Any) -> bool:
    """Register the optimizers that the installed DeepSpeed has.

    mmengine also registers the one-bit optimizers. DeepSpeed has removed them, so that mmengine
    cannot build the strategy. If DeepSpeed has them, the original runs.

    Args:
        module: ``mmengine._strategy.deepspeed``.

    Returns:
        True.
    """

    def make(original):

        def register_deepspeed_optimizers():
            try:
                return original()
            except (ImportError, KeyError):  # KeyError: registered by an earlier strategy of this process
                return [_register(module, found) for found in _optimizers()]

        return register_deepspeed_optimizers

    replace(module, 'register_deepspeed_optimizers', make)
    return True


def _optimizers() -> list[type]:
    found = []
    for name, names in _OPTIMIZERS.items():
        try:
            part = import_module(name)
        except ImportError:
            continue
        found += [getattr(part, name) for name in names if hasattr(part, name)]
    return found


def _register(module: ModuleType, optimizer: type) -> str:
    module.OPTIMIZERS.register_module(module=optimizer, force=True)
    return optimizer.__name__
