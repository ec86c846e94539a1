# Copyright (c) addp_mm contributors. Apache-2.0.
"""Build a config's Runner as a training does, to check it. Nothing stays on disk."""

import copy
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner

from addp_mm.checkpoints.reading import ASSET_SCHEME
from addp_mm.checks.before_training import PreflightError
from addp_mm.checks.check_list import Check
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit
from addp_mm.config.type_names import type_name
from addp_mm.engine.hooks.preflight_hook import checks_before_training
from addp_mm.engine.runner_cfg import set_work_dir
from addp_mm.engine.strategy_cfg import set_strategy
from addp_mm.engine.unwrap import bare_model
from addp_mm.errors import UserError

_WITH_NETWORK = ('ReconstructionFID', 'FrechetDistance', 'LearnedPerceptualSimilarity')


@contextmanager
def trial_config(cfg: Config) -> Iterator[Config]:
    """A copy of a config that writes into a temporary folder and loads no checkpoint.

    A strategy for several processes is removed, and so is the visualizer of the config.

    Args:
        cfg: The whole config.
    """
    trial = copy.deepcopy(cfg)
    _load_nothing(trial.get('model'))
    for key in ('strategy', 'runner_type', 'visualizer'):
        trial.pop(key, None)
    trial.update(load_from=None, resume=False, launcher='none', log_level='CRITICAL')
    # ignore_cleanup_errors: on Windows the log file is still open
    with tempfile.TemporaryDirectory(prefix='addp_check_', ignore_cleanup_errors=True) as folder:
        set_work_dir(trial, folder, 'trial')
        yield trial


def remove_downloading_metric(trial: Config) -> bool:
    """Remove the validation if a metric may download a network when it is built.

    Returns:
        Whether the validation was removed.
    """
    evaluators = trial.get('val_evaluator') or []
    metrics = [evaluators] if isinstance(evaluators, dict) else evaluators
    downloads = any(type_name(metric.get('type')) in _WITH_NETWORK for metric in metrics)
    if downloads:
        trial.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
    return downloads


def _load_nothing(node: Any) -> None:
    """Set ``pretrained=True`` to False: timm would download weights in the constructor."""
    if isinstance(node, dict):
        if node.get('pretrained') is True:
            node['pretrained'] = False
        node = list(node.values())
    for part in node if isinstance(node, list | tuple) else ():
        _load_nothing(part)


def model_checks(
    cfg: Config, load_from: str | None = None, with_data: bool = True, complete: Callable[[Runner], object] = id
) -> Iterator[Check]:
    """Yield the checks that need a built runner: its construction, then those of PreflightHook.

    The weights are random: no ``init_cfg`` is used. If a component cannot be built, the checks that
    need it are left out.

    Args:
        cfg: Config from :func:`trial_config`, with a ``model``. Without a ``train_dataloader``,
            only the model is built.
        load_from: Checkpoint that must fit the model. Defaults to None. One that has to be
            downloaded is not checked.
        with_data: Whether the data can be read. Otherwise no data loader is built. Defaults to
            True.
        complete: Called with the runner when all is built. What is logged before does not concern
            the user. Defaults to a function without effect.
    """
    built: dict[str, Any] = {}

    def build_runner() -> None:
        built['runner'] = Runner.from_cfg(cfg)

    def build_optimizer() -> None:
        runner = built['runner']
        built['optimizer'] = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)

    def build_loops() -> None:
        runner = built['runner']
        built['loops'] = [runner.train_loop, runner.val_loop]  # mmengine builds a loop when it is read
        if 'optimizer' in built:
            runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
            if runner.param_schedulers is not None:
                runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)

    yield Check('model', lambda: _construct('the model or a hook', build_runner))
    if 'runner' not in built:
        return
    runner = built['runner']
    if cfg.get('train_dataloader') is not None:
        yield Check('optimizer', lambda: _construct('optim_wrapper', build_optimizer))
        if with_data:
            yield Check('loops', lambda: _construct('a data loader, a loop, a metric or param_scheduler', build_loops))
    complete(runner)
    if load_from and ('://' not in load_from or load_from.startswith(ASSET_SCHEME)):
        yield Check('load_from', lambda: _check_fit(runner, load_from))
    if 'loops' in built and 'optimizer' in built:
        for check in checks_before_training(runner):
            yield Check('first batches', check)


def check_strategy(cfg: Config) -> None:
    """Check the strategy of a config as for a training on several processes, if it is one for them.

    Raises:
        ConfigError: See :func:`addp_mm.engine.strategy_cfg.set_strategy`.
    """
    trial = copy.deepcopy(cfg)
    single = type_name((cfg.get('strategy') or {}).get('type')) == 'SingleDeviceStrategy'
    trial.launcher = 'none' if single else 'pytorch'
    set_strategy(trial)


def _check_fit(runner: Runner, load_from: str) -> None:
    checkpoint = CheckpointLoader.load_checkpoint(load_from, map_location='cpu')
    check_checkpoint_fit(checkpoint, bare_model(runner), load_from, runner.logger, complete=False)


def _construct(what: str, build: Callable[[], None]) -> None:
    """Build something.

    Raises:
        PreflightError: It failed. The message names the error and its line of code.
    """
    try:
        build()
    except UserError:
        raise
    except Exception as error:  # constructors of any package
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise PreflightError(
            f'{what} cannot be built: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})'
        ) from error
