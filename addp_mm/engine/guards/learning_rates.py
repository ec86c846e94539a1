# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multiply the learning rates of a running training."""

from __future__ import annotations

from itertools import chain

from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

# of OneCycleLR, which computes from the last two
_KEYS = ('lr', 'initial_lr', 'max_lr', 'min_lr')


def multiply_learning_rates(runner: Runner, factor: float) -> None:
    """Multiply the learning rates, now and in all later steps of the schedules.

    mmengine's schedules compute the next rate from the present one or from their base values. Both
    are in checkpoints, so that a resumed training keeps the factor. A fixed lower bound of a
    schedule (``eta_min``) stays as it is.

    Args:
        runner: A runner in training.
        factor: The factor.
    """
    wrapper = runner.optim_wrapper
    parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for part in parts:
        own = getattr(part, 'base_param_settings', None)  # the rate that is logged, if there are groups
        for group in [*part.optimizer.param_groups, *([own] if own else [])]:
            group.update({key: group[key] * factor for key in _KEYS if key in group})
    schedulers = runner.param_schedulers or []
    listed = chain(*schedulers.values()) if isinstance(schedulers, dict) else schedulers
    for scheduler in listed:
        if getattr(scheduler, 'param_name', 'lr') == 'lr' and hasattr(scheduler, 'base_values'):
            scheduler.base_values = [value * factor for value in scheduler.base_values]
