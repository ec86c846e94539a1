# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what a training counts: its loop, sampler, schedulers, hooks and log, before it is built.

mmengine counts epochs where a config does not say ``by_epoch=False``. A loop of iterations is one
epoch for all of them, so that what counts epochs acts once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner

from addp_mm.checks.counted_schedules import check_schedules
from addp_mm.checks.counting_faults import CountingFaults
from addp_mm.checks.signature import accepted_arguments
from addp_mm.checks.training_loop import Loop, hooks_of, read_loop
from addp_mm.checks.type_lookup import find_type, is_kind
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

_ENDLESS = (
    ('mmengine.dataset', 'InfiniteSampler'),
    ('addp_mm.datasets.samplers.resumable_sampler', 'ResumableInfiniteSampler'),
    ('mmdet.datasets.samplers', 'MultiSourceSampler', 'GroupMultiSourceSampler'),
)
_LONG = 100  # iterations of a training in which an interval of 1 is an interval in epochs, not iterations


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


def find_counting_faults(cfg: Config) -> CountingFaults:
    """Compare what the loop, the sampler, the schedulers and the hooks of a config count.

    Args:
        cfg: The whole config.

    Returns:
        Errors and warnings, one sentence each. None for loops of unknown classes.
    """
    loop, reason = read_loop(cfg)
    found = CountingFaults(errors=[reason] if reason else [])
    if loop is not None:
        _check_sampler(cfg, loop, found)
        check_schedules(cfg, loop, found)
        for path, hook in hooks_of(cfg):
            _check_hook(path, hook, loop, found)
        _check_intervals(cfg, loop, found)
    return found


def _check_sampler(cfg: Config, loop: Loop, found: CountingFaults) -> None:
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


def _check_hook(path: str, hook: Mapping, loop: Loop, found: CountingFaults) -> None:
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


def _check_average(path: str, hook: Mapping, loop: Loop, found: CountingFaults) -> None:
    key = 'begin_epoch' if hook.get('begin_epoch') else 'begin_iter'
    begin = hook.get(key) or 0
    if key == 'begin_epoch' and not loop.by_epoch and begin > 1:
        found.errors.append(
            f'{path}.begin_epoch={begin} counts epochs, and train_cfg counts iterations. Set {path}.begin_iter instead'
        )
    elif (key == 'begin_epoch') == loop.by_epoch and begin > loop.total:
        found.errors.append(f'{path}.{key}={begin} is beyond the end of the training ({loop.key}={loop.total})')


def _check_checkpoints(path: str, hook: Mapping, loop: Loop, found: CountingFaults) -> None:
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


def _check_intervals(cfg: Config, loop: Loop, found: CountingFaults) -> None:
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
