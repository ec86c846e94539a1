# Copyright (c) addp_mm contributors. Apache-2.0.
"""Takes a running training back to the last good checkpoint."""

from __future__ import annotations

import os.path as osp
import pickle
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine import dist
from mmengine._strategy import DeepSpeedStrategy
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.config.config_file import ConfigError


class RollBack(Exception):
    """Leaves the iteration or epoch that failed, before any later hook acts on it; see :func:`on_rollback`."""


def on_rollback(runner: Runner, go_back: Callable[[Runner, str], None]) -> None:
    """Let the loop's unit of work (an epoch, or an iteration) end in ``go_back(runner, words)`` at a :class:`RollBack`.

    A hook cannot leave an iteration: the hooks after it would step the schedulers and save the
    failed weights.
    """
    loop = runner.train_loop
    name = 'run_epoch' if hasattr(loop, 'run_epoch') else 'run_iter'
    work: Callable[..., None] = getattr(loop, name)

    def guarded(*args: object, **kwargs: object) -> None:
        try:
            work(*args, **kwargs)
        except RollBack as failure:
            go_back(runner, str(failure))

    setattr(loop, name, guarded)


def checkpoint_hook(runner: Runner) -> CheckpointHook:
    """The runner's CheckpointHook.

    Raises:
        ConfigError: If there is none.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            return hook
    raise ConfigError(
        'going back to the last good checkpoint needs checkpoints: add a CheckpointHook to '
        "default_hooks, or set on_failure='stop'"
    )


def check_can_roll_back(runner: Runner) -> None:
    """Refuse a training that could not be taken back to one of its checkpoints.

    DeepSpeed's are folders with files of its own, which :func:`restore` does not read. An epoch
    cannot be entered in its middle: with a checkpoint from there it would start anew at the
    iteration of the checkpoint, so that schedules by iteration and the number of all iterations
    would overshoot.

    Raises:
        ConfigError: There is no CheckpointHook, or it saves by iteration in a loop of epochs, or
            DeepSpeed saves.
    """
    hook = checkpoint_hook(runner)
    if isinstance(getattr(runner, 'strategy', None), DeepSpeedStrategy):
        raise ConfigError(
            "on_failure='rollback' cannot read the checkpoints of DeepSpeed: set on_failure='stop', "
            'or train with another strategy'
        )
    if hasattr(runner.train_loop, 'run_epoch') and not hook.by_epoch:
        raise ConfigError(
            "on_failure='rollback' in a training by epochs needs checkpoints by epochs: set "
            'default_hooks.checkpoint.by_epoch=True, or train by iterations with '
            'train_cfg=dict(by_epoch=False, max_iters=...)'
        )


class RunCheckpoints:
    """The interval checkpoints from which a run that fails may go on: its own, and of those before it what it resumed.

    A work directory may hold checkpoints of an earlier run, and after a resume from the middle
    those of iterations that this run has not reached: going back to one of them would be going
    elsewhere.

    Args:
        runner: A runner whose training has begun and has not saved anything yet.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        resumed = next((str(path) for path in (runner._resume, runner._load_from) if isinstance(path, str)), None)
        start = self._reached()
        # Resumed without a name: from the last one in the work directory.
        here = start > 0 and (resumed is None or Path(resumed).resolve().parent == self.folder.resolve())
        self._foreign = {path: time for number, path, time in self._listed() if not (here and number <= start)}
        self._resumed_from = [resumed] if start > 0 and not here else []

    @property
    def folder(self) -> Path:
        """Where the checkpoints go."""
        return Path((self.hook and self.hook.out_dir) or self.runner.work_dir)

    def saved(self) -> list[str]:
        """Their paths, newest (most iterations or epochs) first."""
        reached = self._reached()
        found = [
            (number, str(path))
            for number, path, time in self._listed()
            if number <= reached and self._foreign.get(path) != time
        ]
        return [path for _, path in sorted(found, reverse=True)] + self._resumed_from

    def good(self) -> Iterator[str]:
        """Those of :meth:`saved` that can be read and hold finite weights alone, newest first."""
        for path in self.saved():
            try:
                weights = CheckpointLoader.load_checkpoint(path, map_location='cpu')['state_dict']
            except (OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
                self.runner.logger.warning(f'{path} cannot be read and is passed over: {error}')
                continue
            broken = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
            if broken:
                self.runner.logger.warning(f'{path} is passed over: {broken[0]} is not finite')
                continue
            yield path

    def choose(self, tried: set[str]) -> str | None:
        """The newest good checkpoint that was not tried, or else the newest good one; the same on all ranks.

        Args:
            tried: Checkpoints from which training failed before.

        Returns:
            Path, or None if there is no good checkpoint.
        """
        choice = [None]
        if dist.is_main_process():
            newest = None
            for path in self.good():
                newest = newest or path
                if path not in tried:
                    choice = [path]
                    break
            else:
                choice = [newest]
        dist.broadcast_object_list(choice)
        return choice[0]

    def _reached(self) -> int:
        return self.runner.epoch if self.hook is not None and self.hook.by_epoch else self.runner.iter

    def _listed(self) -> Iterator[tuple[int, Path, int]]:
        """Number, path and time of writing of every checkpoint in the folder; none of a folder that is not local."""
        if self.hook is None or not self.folder.is_dir():
            return
        # 'iter_{}.pth', or 'iter_{:06d}.pth'
        name = r'(\d+)'.join(map(re.escape, re.split(r'\{[^}]*\}', self.hook.filename_tmpl)))
        for path in self.folder.iterdir():
            match = re.fullmatch(name, path.name)
            if match and path.is_file():
                yield int(match[1]), path, path.stat().st_mtime_ns


def restore(runner: Runner, path: str) -> None:
    """Set model, optimizer, schedulers, counters and the hooks' states to those of a checkpoint.

    The order of the data is not set back: training goes on with batches that it has not just failed
    on.

    Args:
        runner: A runner in training.
        path: Checkpoint of this run.
    """
    resuming = runner._resume
    # by it mmengine's EMAHook, and the hooks here, tell a training's own checkpoint (its weights
    # are its averages, and it holds their state) from weights alone
    runner._resume = True
    try:
        runner.resume(path)
    finally:
        runner._resume = resuming
    runner.optim_wrapper.zero_grad()
    runner.optim_wrapper.initialize_count_status(runner.model, runner.iter, runner.max_iters)
    hook = checkpoint_hook(runner)
    # the ids behind the restored point are written again: listed twice, their files would be
    # removed too early
    step = int(re.search(r'(\d+)\D*$', osp.basename(path))[1])
    if hasattr(hook, 'keep_ckpt_ids'):
        hook.keep_ckpt_ids = deque((kept for kept in hook.keep_ckpt_ids if kept <= step), hook.keep_ckpt_ids.maxlen)
    if dist.is_main_process():
        Path(runner.work_dir, 'last_checkpoint').write_text(path)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
