# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the metric that chooses the best checkpoint is a value of the validation."""

from __future__ import annotations

import inspect

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from addp_mm.checks.metric_names import described, is_given, metric_names
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.checks.training_loop import hooks_of
from addp_mm.checks.type_lookup import find_type
from addp_mm.errors import ConfigError, first_few, suggest


def check_rules(cfg: Config) -> None:
    """Check the options of ``save_best`` in a config, and that it is known whether more is better.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: The options are wrong. The message names the key.
    """
    for path, hook in hooks_of(cfg):
        kind = find_type(hook.get('type'), HOOKS)
        if not hook.get('save_best') or not inspect.isclass(kind) or not issubclass(kind, CheckpointHook):
            continue
        try:
            kind(**{key: value for key, value in hook.items() if key not in ('type', 'priority')})
        except ValueError as error:
            raise ConfigError(
                f'config: {path}.save_best={hook["save_best"]!r}: mmengine does not know whether more of it is better. '
                f'Set {path}.rule=greater or less'
            ) from error
        except (AssertionError, KeyError) as error:
            raise ConfigError(f'config: {path}: {error.args[0] if error.args else error}') from error


def check_save_best(runner: Runner) -> None:
    """Check that the metrics that hooks and schedules read are values of the validation.

    These are ``save_best`` of CheckpointHook and ``monitor`` of a ReduceOnPlateau schedule. A value
    whose name contains 'loss' may come from the model.

    Args:
        runner: The runner, built.

    Raises:
        PreflightError: No metric gives such a value. The message names those that there are.
    """
    hook = next((one for one in runner.hooks if isinstance(one, CheckpointHook)), None)
    wanted = (hook and hook.save_best) or []
    if runner.val_loop is None:
        if wanted:
            runner.logger.warning(
                f'default_hooks.checkpoint.save_best={wanted} has no effect, because the config has no validation: '
                'val_dataloader, val_cfg and val_evaluator are None'
            )
        return
    metrics = runner.val_loop.evaluator.metrics
    for name in wanted:
        if name == 'auto':
            _check_rule_of_first(hook, metrics)
        else:
            _check_given(f'default_hooks.checkpoint.save_best={name!r}', name, metrics, 'Set save_best')
    for schedule in _schedules(runner):
        if isinstance(schedule, ReduceOnPlateauParamScheduler) and 'loss' not in schedule.monitor:
            name = schedule.monitor
            _check_given(f'param_scheduler: monitor={name!r} of ReduceOnPlateau', name, metrics, 'Set monitor')


def _check_given(what: str, name: str, metrics: list, remedy: str) -> None:
    if is_given(name, metrics):
        return
    names = described(metrics)
    raise PreflightError(
        f'{what} is not a metric of val_evaluator. Its metrics are called {first_few(names, 12)}'
        f'{suggest(name, names) or "."} {remedy} to one of them, or change val_evaluator so that it gives {name}'
    )


def _check_rule_of_first(hook: CheckpointHook, metrics: list) -> None:
    """Check that mmengine knows whether more is better of the first value, which 'auto' means."""
    first = next(iter((metric_names(metrics[0]) if metrics else None) or ()), None)
    if first is None or hook.rules != [None]:
        return
    try:
        CheckpointHook(save_best=first, greater_keys=hook.greater_keys, less_keys=hook.less_keys)
    except ValueError as error:
        raise PreflightError(
            f"default_hooks.checkpoint.save_best='auto' means {first}, and mmengine does not know whether more of it "
            'is better. Set default_hooks.checkpoint.rule=greater or less'
        ) from error


def _schedules(runner: Runner) -> list:
    """All schedules of a built runner."""
    found = runner.param_schedulers or []
    return [one for part in found.values() for one in part] if isinstance(found, dict) else list(found)
