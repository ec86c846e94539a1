# Copyright (c) addp_mm contributors. Apache-2.0.
"""Build a config's Runner as a training does, to check it. Nothing stays on disk."""

import copy
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner

from addp_mm.checkpoints.reading import ASSET_SCHEME
from addp_mm.checks.before_training import PreflightError
from addp_mm.checks.check_list import Check
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit
from addp_mm.config.type_names import type_name
from addp_mm.engine.build_errors import name_sections
from addp_mm.engine.hooks.frozen_components import check_loaded
from addp_mm.engine.hooks.preflight_hook import checks_before_training
from addp_mm.engine.runner_cfg import scale_by_optimizer_steps, set_work_dir
from addp_mm.engine.strategy_cfg import set_strategy
from addp_mm.engine.unwrap import bare_model
from addp_mm.errors import UserError, first_few
from addp_mm.models.selfsup.frozen import mark_loaded

_WITH_NETWORK = ('ReconstructionFID', 'FrechetDistance', 'LearnedPerceptualSimilarity')


@contextmanager
def trial_config(cfg: Config) -> Iterator[Config]:
    """A copy of a config that writes into a temporary folder and starts without ``load_from``.

    A strategy for several processes is removed, and so is the visualizer of the config.

    Args:
        cfg: The whole config.
    """
    trial = copy.deepcopy(cfg)
    for key in ('strategy', 'runner_type', 'visualizer'):
        trial.pop(key, None)
    trial.update(load_from=None, resume=False, launcher='none', log_level='CRITICAL')
    # ignore_cleanup_errors: on Windows the log file is still open
    with tempfile.TemporaryDirectory(prefix='addp_check_', ignore_cleanup_errors=True) as folder:
        set_work_dir(trial, folder, 'trial')
        yield trial


def remove_downloads(trial: Config) -> list[str]:
    """Remove what would be downloaded while a runner is built: weights, and networks of metrics.

    Args:
        trial: Config from :func:`trial_config`, changed in place.

    Returns:
        What was removed, in one line each.
    """
    notes = []
    addresses = sorted(set(_remove_addresses(trial.get('model'))))
    if addresses:
        notes.append(f'these weights are not downloaded, so that their fit is not checked: {first_few(addresses)}')
    evaluators = trial.get('val_evaluator') or []
    metrics = [evaluators] if isinstance(evaluators, dict) else evaluators
    if any(type_name(metric.get('type')) in _WITH_NETWORK for metric in metrics):
        trial.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        notes.append('the validation is not checked: its metric may download a network')
    return notes


def _remove_addresses(node: Any) -> Iterator[str]:
    """Remove initializers that download weights; yield the addresses."""
    if isinstance(node, dict):
        for key in ('pretrained', 'init_cfg'):
            value = node.get(key)
            entries = value if isinstance(value, list | tuple) else [value]
            kept = [entry for entry in entries if _address(entry) is None]
            if len(kept) < len(entries):
                named = f' of {node["model"]}' if value is True and isinstance(node.get('model'), str) else ''
                yield from (f'{address}{named}' for address in map(_address, entries) if address)
                # timm takes False, the others None
                node[key] = kept if isinstance(value, list | tuple) else False if value is True else None
        node = list(node.values())
    for part in node if isinstance(node, list | tuple) else ():
        yield from _remove_addresses(part)


def _address(entry: Any) -> str | None:
    """The address of weights that an entry of a model's config downloads; None if it does not."""
    if entry is True:
        return 'pretrained=True'
    checkpoint = entry.get('checkpoint') if isinstance(entry, dict) else entry
    return checkpoint if isinstance(checkpoint, str) and not _is_local(checkpoint) else None


def _is_local(checkpoint: str) -> bool:
    return '://' not in checkpoint or checkpoint.startswith(ASSET_SCHEME)


def model_checks(
    cfg: Config,
    load_from: str | None = None,
    with_data: bool = True,
    all_weights: bool = True,
    complete: Callable[[Runner], object] = id,
) -> Iterator[Check]:
    """Yield the checks that need a built runner: its construction, then those of PreflightHook.

    If a component cannot be built, the checks that need it are left out.

    Args:
        cfg: Config from :func:`trial_config`, with a ``model``. Without a ``train_dataloader``,
            only the model is built.
        load_from: Checkpoint that must fit the model. Defaults to None. One that has to be
            downloaded is not checked.
        with_data: Whether the data can be read. Otherwise no data loader is built. Defaults to
            True.
        all_weights: Whether the model can load all its initial weights. Otherwise frozen components
            count as loaded. Defaults to True.
        complete: Called with the runner when all is built. What is logged before does not concern
            the user. Defaults to a function without effect.
    """
    trial = _Trial(cfg)
    yield Check('model', partial(_construct, 'the model or a hook', trial.build_runner))
    runner = trial.runner
    if runner is None:
        return
    yield Check('initial weights', partial(_construct, 'the initial weights of the model', trial.init_weights))
    if load_from and _is_local(load_from):
        yield Check('load_from', partial(_check_fit, runner, load_from))
    elif load_from or not all_weights:
        _count_as_loaded(runner)
    if hasattr(bare_model(runner), 'unloaded_components'):
        yield Check('initial weights', partial(check_loaded, bare_model(runner)))
    if cfg.get('train_dataloader') is not None:
        yield Check('optimizer', partial(_construct, 'optim_wrapper', trial.build_optimizer))
        if with_data:
            what = 'a data loader, a loop, a metric or param_scheduler'
            yield Check('loops', partial(_construct, what, trial.build_loops))
    complete(runner)
    if trial.has_loops and trial.has_optimizer:
        for check in checks_before_training(runner):
            yield Check('first batches', check)


class _Trial:
    """A runner that is built step by step, in the order of ``Runner.train``."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.runner: Runner | None = None
        self.has_optimizer = self.has_loops = False

    def build_runner(self) -> None:
        self.runner = Runner.from_cfg(self.cfg)

    def init_weights(self) -> None:
        # mmengine's Runner has no public method that initialises weights on all ranks
        self.runner._init_model_weights()  # type: ignore[union-attr]  # noqa: SLF001

    def build_optimizer(self) -> None:
        runner: Any = self.runner
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        self.has_optimizer = True

    def build_loops(self) -> None:
        runner: Any = self.runner
        self.has_loops = bool((runner.train_loop, runner.val_loop))  # mmengine builds a loop when it is read
        if self.has_optimizer:
            scale_by_optimizer_steps(runner)
            runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
            if runner.param_schedulers is not None:
                runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)


def _count_as_loaded(runner: Runner) -> None:
    for module in runner.model.modules():
        if hasattr(module, 'weights_loaded'):
            mark_loaded(module)


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
        with name_sections():
            build()
    except UserError:
        raise
    except Exception as error:  # constructors of any package
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise PreflightError(
            f'{what} cannot be built: {type(error).__name__}: {error} ({where.filename}, line {where.lineno})'
        ) from error
