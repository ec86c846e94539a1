# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what a training counts: its loop, sampler, schedulers, hooks and log, before it is built.

mmengine counts epochs where a config does not say ``by_epoch=False``. A loop of iterations is one
epoch for all of them, so that what counts epochs acts once, at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS, PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from addp_mm.checks.signature import accepted_arguments
from addp_mm.checks.type_lookup import find_type, is_kind
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

_ENDLESS = (
    ('mmengine.dataset', 'InfiniteSampler'),
    ('addp_mm.datasets.samplers.resumable_sampler', 'ResumableInfiniteSampler'),
    ('mmdet.datasets.samplers', 'MultiSourceSampler', 'GroupMultiSourceSampler'),
)
# Schedules that reach their last value at `end`.
_REACHES_ITS_END = ('LinearLR', 'CosineAnnealingLR', 'PolyLR', 'CosineAnnealingParamScheduler')
_TOLERANCE = 0.05  # of the half period of a cosine: rounded numbers are no mistake
_LONG = 100  # iterations of a training in which an interval of 1 is an interval in epochs, not iterations


@dataclass
class Loop:
    """What a training counts.

    Attributes:
        by_epoch: Whether it counts epochs.
        total: Number of epochs, or of iterations.
    """

    by_epoch: bool
    total: int

    @property
    def unit(self) -> str:
        """'epochs' or 'iterations'."""
        return 'epochs' if self.by_epoch else 'iterations'

    @property
    def key(self) -> str:
        """The key of :attr:`total`."""
        return 'train_cfg.max_epochs' if self.by_epoch else 'train_cfg.max_iters'


@dataclass
class Counting:
    """What :func:`find_counting_faults` finds.

    Attributes:
        errors: Training would not end, would fail, or would keep one learning rate.
        warnings: Training would do something else than the config seems to mean.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_counting(cfg: Config) -> None:
    """Refuse a config whose loop, sampler, schedulers and hooks do not fit together.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: They do not. The message names each key and what to set.
    """
    found = find_counting_faults(cfg)
    if found.errors:
        raise ConfigError('config: ' + '. '.join(found.errors))


def warn_about_counting(runner: Runner) -> None:
    """Log the warnings of :func:`find_counting_faults`.

    Args:
        runner: The runner, built.
    """
    for warning in find_counting_faults(runner.cfg).warnings:
        runner.logger.warning(f'config: {warning}')


def find_counting_faults(cfg: Config) -> Counting:
    """Compare what the loop, the sampler, the schedulers and the hooks of a config count.

    Args:
        cfg: The whole config.

    Returns:
        Errors and warnings, one sentence each. None for loops of unknown classes.
    """
    found = Counting()
    loop = loop_of(cfg, found)
    if loop is not None:
        _check_sampler(cfg, loop, found)
        # check_optimizer names a value that is not a number
        if all(isinstance(one.get(key, 0), int | float) for _, one in schedulers_of(cfg) for key in ('begin', 'end')):
            for path, scheduler in schedulers_of(cfg):
                _check_scheduler(path, scheduler, loop, found)
            _check_end_of_rates(cfg, loop, found)
        for path, hook in hooks_of(cfg):
            _check_hook(path, hook, loop, found)
        _check_intervals(cfg, loop, found)
    return found


def loop_of(cfg: Config, found: Counting | None = None) -> Loop | None:
    """The loop of a config's ``train_cfg``.

    Args:
        cfg: The whole config.
        found: Takes the fault of a loop that cannot be built. Defaults to None: it is ignored.

    Returns:
        The loop. None if there is no training, or if the class of the loop is unknown.
    """
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, Mapping):
        return None
    kind, by_epoch = train_cfg.get('type'), train_cfg.get('by_epoch')
    fault = ''
    if kind is not None and by_epoch is not None:
        fault = f'train_cfg has type={type_name(kind)!r} and by_epoch={by_epoch}: remove one of them'
    elif kind is not None:
        loop = find_type(kind, LOOPS)
        if not inspect.isclass(loop) or not issubclass(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
            return None
        by_epoch = issubclass(loop, EpochBasedTrainLoop)
    elif by_epoch is None:
        fault = 'train_cfg needs by_epoch=True with max_epochs, or by_epoch=False with max_iters'
    key, other = ('max_epochs', 'max_iters') if by_epoch else ('max_iters', 'max_epochs')
    if not fault and train_cfg.get(key) is None:
        counts = 'epochs' if by_epoch else 'iterations'
        fault = f'train_cfg counts {counts} and has no {key}'
    if not fault and train_cfg.get(other) is not None:
        fault = (
            f'train_cfg has {key} and {other}: remove the one that does not belong to the loop '
            f'(--cfg-options train_cfg.by_epoch={not by_epoch} changes the loop of a train_cfg without type)'
        )
    if not fault:
        return Loop(bool(by_epoch), train_cfg[key])
    if found is not None:
        found.errors.append(fault)
    return None


def schedulers_of(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield the schedulers of a config, each with its dotted path."""
    yield from _scheduler_nodes(cfg.get('param_scheduler'), 'param_scheduler')


def hooks_of(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield the hooks of a config with dotted paths; without a CheckpointHook that of mmengine."""
    defaults = cfg.get('default_hooks') or {}
    if 'checkpoint' not in defaults:
        yield 'default_hooks.checkpoint', dict(type='CheckpointHook', interval=1)
    for name, hook in defaults.items():
        if isinstance(hook, Mapping):
            yield f'default_hooks.{name}', hook
    for index, hook in enumerate(cfg.get('custom_hooks') or []):
        if isinstance(hook, Mapping):
            yield f'custom_hooks.{index}', hook


def _scheduler_nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping) and 'type' in node:
        yield path, node
    elif isinstance(node, Mapping):  # one list for each of several optimizers
        for name, inner in node.items():
            yield from _scheduler_nodes(inner, f'{path}.{name}')
    else:
        for index, inner in enumerate(node or []):
            yield from _scheduler_nodes(inner, f'{path}.{index}')


def _check_sampler(cfg: Config, loop: Loop, found: Counting) -> None:
    loader = cfg.get('train_dataloader')
    sampler = (loader.get('sampler') or {}) if isinstance(loader, Mapping) else {}
    kind = sampler.get('type') if isinstance(sampler, Mapping) else None
    if not loop.by_epoch or kind is None:
        return
    if find_type(kind, DATA_SAMPLERS) is InfiniteSampler or any(is_kind(kind, DATA_SAMPLERS, *one) for one in _ENDLESS):
        found.errors.append(
            f'train_cfg counts epochs, but train_dataloader.sampler {type_name(kind)} has no end, so that the first '
            'epoch would never end. Set train_dataloader.sampler.type=DefaultSampler, or train by iterations: '
            'train_cfg=dict(by_epoch=False, max_iters=…)'
        )


def _needs_metrics(scheduler: Mapping) -> bool:
    """Whether a scheduler steps after each validation, which a loop of iterations has too."""
    kind = find_type(scheduler.get('type'), PARAM_SCHEDULERS)
    return inspect.isclass(kind) and issubclass(kind, ReduceOnPlateauParamScheduler)


def _check_scheduler(path: str, scheduler: Mapping, loop: Loop, found: Counting) -> None:
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


def _check_period(path: str, scheduler: Mapping, span: int, found: Counting) -> None:
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


def _check_end_of_rates(cfg: Config, loop: Loop, found: Counting) -> None:
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


def _check_hook(path: str, hook: Mapping, loop: Loop, found: Counting) -> None:
    kind: Any = find_type(hook.get('type'), HOOKS)
    if not isinstance(kind, type):
        return
    if issubclass(kind, EMAHook):
        _check_average(path, hook, loop, found)
    elif issubclass(kind, CheckpointHook):
        _check_checkpoints(path, hook, loop, found)
    elif not loop.by_epoch:
        epochs = {key: value for key, value in hook.items() if 'epoch' in key and isinstance(value, int) and value > 1}
        for key, value in epochs.items():
            found.warnings.append(
                f'{path}.{key}={value} counts epochs, and train_cfg counts iterations: {type_name(kind)} would not act'
            )
        if 'by_epoch' in accepted_arguments(kind).names and hook.get('by_epoch', True):
            found.warnings.append(
                f'{path} ({type_name(kind)}) counts epochs, and train_cfg counts iterations. '
                f'Set {path}.by_epoch=False, with its numbers in iterations'
            )


def _check_average(path: str, hook: Mapping, loop: Loop, found: Counting) -> None:
    key = 'begin_epoch' if hook.get('begin_epoch') else 'begin_iter'
    begin = hook.get(key) or 0
    if key == 'begin_epoch' and not loop.by_epoch and begin > 1:
        found.errors.append(
            f'{path}.begin_epoch={begin} counts epochs, and train_cfg counts iterations. Set {path}.begin_iter instead'
        )
    elif (key == 'begin_epoch') == loop.by_epoch and begin > loop.total:
        found.errors.append(f'{path}.{key}={begin} is beyond the end of the training ({loop.key}={loop.total})')


def _check_checkpoints(path: str, hook: Mapping, loop: Loop, found: Counting) -> None:
    by_epoch, interval = hook.get('by_epoch', True), hook.get('interval', -1)
    if by_epoch and not loop.by_epoch:
        # the same mistake as that of a schedule: both are named at once
        (found.errors or found.warnings).append(
            f'{path} counts epochs, and train_cfg counts iterations: the only checkpoint would be written at the end. '
            f'Set {path}.by_epoch=False and {path}.interval in iterations'
        )
    elif by_epoch == loop.by_epoch and not hook.get('save_last', True) and not 0 < interval <= loop.total:
        found.warnings.append(
            f'{path} has interval={interval} and save_last=False, and {loop.key} is {loop.total}: no checkpoint would '
            f'be written. Set {path}.save_last=True'
        )
    elif not by_epoch and not loop.by_epoch and interval == 1 and loop.total >= _LONG:
        found.warnings.append(f'{path} writes a checkpoint after each iteration. Set {path}.interval in iterations')


def _check_intervals(cfg: Config, loop: Loop, found: Counting) -> None:
    """Check when validation takes place."""
    if cfg.get('val_dataloader') is None:
        return
    train_cfg = cfg.train_cfg
    begin = train_cfg.get('val_begin', 1)
    if begin > loop.total + 1:  # one more than the total switches validation off
        found.warnings.append(
            f'train_cfg.val_begin={begin} is beyond the end of the training ({loop.key}={loop.total}): it would not '
            'validate'
        )
    if not loop.by_epoch and train_cfg.get('val_interval') == 1 and loop.total >= _LONG:
        found.warnings.append(
            'train_cfg.val_interval=1 validates after each iteration. Set train_cfg.val_interval in iterations'
        )
    for milestone, interval in train_cfg.get('dynamic_intervals') or []:
        if milestone > loop.total:
            found.warnings.append(
                f'train_cfg.dynamic_intervals sets val_interval={interval} from {milestone} on, and {loop.key} is '
                f'{loop.total}: it has no effect'
            )
