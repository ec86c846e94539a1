# Copyright (c) addp_mm contributors. Apache-2.0.
"""Moving averages of all weights in a few calls."""

from __future__ import annotations

from collections import Counter
from typing import Any

from addp_mm.compat.importing import replace_method


def patch_moving_average(module: Any) -> bool:
    """Make ``ExponentialMovingAverage`` average all weights of a type and device in one call.

    mmengine calls a kernel for each weight. Subclasses with an average of their own keep theirs.

    Args:
        module: ``mmengine.model.averaged_model``.

    Returns:
        True.
    """
    own = module.ExponentialMovingAverage.avg_func

    def make(original):

        def update_parameters(self, model):
            if type(self).avg_func is not own:
                original(self, model)
                return
            pairs: list[tuple] = []
            self.avg_func = lambda averaged, source, steps: pairs.append((averaged, source))
            try:
                original(self, model)
            finally:
                del self.avg_func
            _average(pairs, self.momentum)

        return update_parameters

    replace_method(module.ExponentialMovingAverage, 'update_parameters', make)
    return True


def _average(pairs: list[tuple], momentum: float) -> None:
    """Move averages towards the weights, all pairs of the same kind in one call.

    An average that is listed several times, because its weight is shared, gets as many calls.
    """
    import torch

    kinds: dict[tuple, tuple[list, list]] = {}
    listed: Counter = Counter()
    for averaged, source in pairs:
        listed[averaged.data_ptr()] += 1
        kind = (averaged.device, averaged.dtype, source.dtype, listed[averaged.data_ptr()])
        averages, sources = kinds.setdefault(kind, ([], []))
        averages.append(averaged)
        sources.append(source)
    for averages, sources in kinds.values():
        torch._foreach_lerp_(averages, sources, momentum)  # torch has no public name of it
