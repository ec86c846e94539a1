# Copyright (c) addp_mm contributors. Apache-2.0.
"""The hooks that the tools add to every training and test, also to configs of other packages."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

# by their name in default_hooks: `default_hooks.NAME=None` leaves a hook out
_OF_TRAINING = dict(random_state='RandomStateHook', guard='TrainingGuardHook', broken_samples='BrokenSamplesHook')
_OF_TEST = dict(broken_samples='BrokenSamplesHook')
# ours does what mmengine's does, and takes its arguments
_REPLACED = {
    spelling: f'addp_mm.{hook.__name__}'
    for hook in (CheckpointHook, EarlyStoppingHook)
    for spelling in (hook, hook.__name__, f'mmengine.{hook.__name__}', f'mmengine.hooks.{hook.__name__}')
}
# mmengine itself leaves out these if they are None
_OF_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def add_training_hooks(cfg: Config, override_schedule: bool = False) -> None:
    """Add the hooks of a training: exact resume, checkpoints, guards, faults of the data, signals.

    A hook of the config keeps its arguments. ``default_hooks.random_state=None``, ``guard=None``
    and ``broken_samples=None`` leave these hooks out.

    Args:
        cfg: The config.
        override_schedule: Whether a resumed training uses the optimizer settings and schedules of
            the config, not those of the checkpoint. Defaults to False.

    Raises:
        ConfigError: They cannot be replaced in the checkpoints of DeepSpeed.
    """
    if override_schedule and type_name((cfg.get('strategy') or {}).get('type')) == 'ZeroStrategy':
        raise ConfigError('--override-schedule does not fit ZeroStrategy: DeepSpeed loads its optimizer itself')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    for hook in _given(cfg):
        hook['type'] = _REPLACED.get(hook['type'], hook['type'])
    _add_default(cfg, _OF_TRAINING)
    _add_last(cfg, 'PendingValidationHook')
    _add_last(cfg, 'ResumeHook', override_schedule=override_schedule)
    _add_last(cfg, 'PreflightHook', testing=False)
    _add_last(cfg, 'StopHook')  # behind all others


def add_test_hooks(cfg: Config) -> None:
    """Add the hooks of a test: the check of the checkpoint, and faults of the data."""
    _add_default(cfg, _OF_TEST)
    _add_last(cfg, 'PreflightHook', testing=True)


def leave_out_none(cfg: Config) -> None:
    """Remove default hooks that are None; mmengine allows None for its own only."""
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in _OF_MMENGINE]:
        del hooks[name]


def _given(cfg: Config) -> Iterator[dict]:
    """The hooks of a config; one that is built already is none of them."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return (hook for hook in hooks if isinstance(hook, dict) and 'type' in hook)


def _add_default(cfg: Config, wanted: dict[str, str]) -> None:
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    given = {type_name(hook['type']) for hook in _given(cfg)}
    for name, kind in wanted.items():
        if kind not in given:
            hooks.setdefault(name, ConfigDict(type=f'addp_mm.{kind}'))


def _add_last(cfg: Config, kind: str, **options: object) -> None:
    """Add a hook behind all others, in place of that of a config that a tool has written."""
    hooks = cfg.get('custom_hooks') or []
    others = [hook for hook in hooks if not isinstance(hook, dict) or type_name(hook.get('type')) != kind]
    cfg.custom_hooks = [*others, dict(type=f'addp_mm.{kind}', **options)]
