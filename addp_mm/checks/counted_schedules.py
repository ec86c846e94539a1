# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the schedules of a config and its loop count the same, for the same time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from addp_mm.checks.counting_faults import CountingFaults
from addp_mm.checks.training_loop import Loop, schedulers_of
from addp_mm.checks.type_lookup import find_type
from addp_mm.config.type_names import type_name

# Schedules that reach their last value at `end`.
_REACHES_ITS_END = ('LinearLR', 'CosineAnnealingLR', 'PolyLR', 'CosineAnnealingParamScheduler')
_TOLERANCE = 0.05  # of the half period of a cosine: rounded numbers are no mistake


def check_schedules(cfg: Config, loop: Loop, found: CountingFaults) -> None:
    """Compare every schedule with the loop.

    Args:
        cfg: The whole config.
        loop: Its loop.
        found: Takes the faults.
    """
    # check_optimizer names a value that is not a number
    if not all(isinstance(one.get(key, 0), int | float) for _, one in schedulers_of(cfg) for key in ('begin', 'end')):
        return
    for path, scheduler in schedulers_of(cfg):
        _check_scheduler(path, scheduler, loop, found)
    _check_end_of_rates(cfg, loop, found)


def _needs_metrics(scheduler: Mapping) -> bool:
    """Whether a scheduler steps after each validation, which a loop of iterations has too."""
    kind = find_type(scheduler.get('type'), PARAM_SCHEDULERS)
    return inspect.isclass(kind) and issubclass(kind, ReduceOnPlateauParamScheduler)


def _check_scheduler(path: str, scheduler: Mapping, loop: Loop, found: CountingFaults) -> None:
    if _needs_metrics(scheduler):
        return
    name = type_name(scheduler.get('type'))
    by_epoch = scheduler.get('by_epoch', True)
    if not loop.by_epoch and by_epoch and not scheduler.get('convert_to_iter_based'):
        found.errors.append(
            f'{path} ({name}) counts epochs, and train_cfg counts iterations: it would not step before the end of the '
            f'training. Set {path}.by_epoch=False, with its numbers in iterations'
        )
        return
    if by_epoch != loop.by_epoch:
        if not loop.by_epoch and 'end' not in scheduler:
            found.warnings.append(
                f'{path} ({name}) is converted from epochs and has no end: mmengine ends it after one pass over the '
                f'data. Set {path}.end, in epochs'
            )
        return  # the length of an epoch is not known yet
    begin, end = scheduler.get('begin', 0), scheduler.get('end', loop.total)
    last, steps = min(end - 1, loop.total) - begin, scheduler.get('total_steps')
    if name == 'OneCycleLR' and isinstance(steps, int) and last > steps > 0:
        found.errors.append(
            f'{path} (OneCycleLR) has total_steps={steps} and would be asked for step {last}, which fails. '
            f'Set {path}.total_steps={loop.total - begin}'
        )
    elif begin >= loop.total:
        found.warnings.append(f'{path} ({name}) begins at {begin}, and {loop.key} is {loop.total}: it has no effect')
    elif name in _REACHES_ITS_END and end > loop.total:
        found.warnings.append(
            f'{path} ({name}) ends at {end}, and {loop.key} is {loop.total}: training stops before its last value. '
            f'Set {path}.end={loop.total}'
        )
    else:
        _check_period(path, scheduler, min(end, loop.total) - begin, found)


def _check_period(path: str, scheduler: Mapping, span: int, found: CountingFaults) -> None:
    """Compare the half period of a cosine with the steps in which it acts."""
    period = scheduler.get('T_max')
    if type_name(scheduler.get('type')) != 'CosineAnnealingLR' or not isinstance(period, int) or period <= 0:
        return
    if abs(period - span) > 1 + _TOLERANCE * span:
        found.warnings.append(
            f'{path} (CosineAnnealingLR) has T_max={period} and acts for {span} steps: the rate '
            f'{"does not reach its minimum" if period > span else "rises again after its minimum"}. '
            f'Set {path}.T_max={span}, or leave T_max out'
        )


def _check_end_of_rates(cfg: Config, loop: Loop, found: CountingFaults) -> None:
    """Warn if all schedules of the learning rate that count like the loop end early."""
    counted = [
        (path, one)
        for path, one in schedulers_of(cfg)
        if one.get('by_epoch', True) == loop.by_epoch and not _needs_metrics(one)
    ]
    if len(counted) != len(list(schedulers_of(cfg))) or not counted:
        return
    ends = [one.get('end', loop.total) for _, one in counted]
    # a warm-up alone is a schedule, too
    if max(ends) < loop.total and any(type_name(one.get('type')) in _REACHES_ITS_END[1:] for _, one in counted):
        path = counted[ends.index(max(ends))][0]
        found.warnings.append(
            f'{path} ends at {max(ends)}, and {loop.key} is {loop.total}: the learning rate stays the same after it. '
            f'Set {path}.end={loop.total}'
        )
