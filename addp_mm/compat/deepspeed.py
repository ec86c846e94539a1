# Copyright (c) addp_mm contributors. Apache-2.0.
"""DeepSpeedStrategy with a current DeepSpeed."""

from importlib import import_module
from types import ModuleType

from addp_mm.compat.importing import replace

_OPTIMIZERS = {
    'deepspeed.ops.adam': ('DeepSpeedCPUAdam', 'FusedAdam'),
    'deepspeed.ops.lamb': ('FusedLamb',),
    'deepspeed.runtime.fp16.onebit': ('OnebitAdam', 'OnebitLamb', 'ZeroOneAdam'),
}


def mend_deepspeed_optimizers(module: ModuleType) -> None:
    """Register those of DeepSpeed's optimizers that the installed DeepSpeed has.

    mmengine asks for the one-bit ones too, which DeepSpeed has removed, and so builds no strategy
    at all. Applied to ``mmengine._strategy.deepspeed``; the original runs where it can.
    """

    def make(original):

        def register_deepspeed_optimizers():
            try:
                return original()
            except (ImportError, KeyError):  # KeyError: registered by an earlier strategy of this process
                return [_register(module, found) for found in _optimizers()]

        return register_deepspeed_optimizers

    replace(module, 'register_deepspeed_optimizers', make)


def _optimizers() -> list[type]:
    found = []
    for place, names in _OPTIMIZERS.items():
        try:
            part = import_module(place)
        except ImportError:
            continue
        found += [getattr(part, name) for name in names if hasattr(part, name)]
    return found


def _register(module: ModuleType, optimizer: type) -> str:
    module.OPTIMIZERS.register_module(module=optimizer, force=True)
    return optimizer.__name__
