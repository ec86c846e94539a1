# Copyright (c) addp_mm contributors. Apache-2.0.
"""Take a running training back to the last good checkpoint."""

from __future__ import annotations

import os.path as osp
import pickle
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mmengine import dist
from mmengine._strategy import DeepSpeedStrategy
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import IterTimerHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.checkpoints.finite import must_be_finite, refuse_non_finite
from addp_mm.config.config_file import ConfigError
from addp_mm.devices import default_device, empty_cache
from addp_mm.engine.hooks.checkpoint_hook import CheckpointHook
from addp_mm.engine.unwrap import find_checkpoint_hook
from addp_mm.errors import RESUME


class RollBackError(Exception):
    """Ends a failed iteration or epoch before any later hook acts; see :func:`allow_rollback`.

    Args:
        failure: What went wrong.
        go_back: Called with the runner and ``failure``. It replaces the rest of the epoch, or of
            the iteration in a training by iterations.
    """

    def __init__(self, failure: str, go_back: Callable[[Runner, str], None]) -> None:
        super().__init__(failure)
        self.go_back = go_back


def allow_rollback(runner: Runner) -> None:
    """Make the training loop go back when a hook raises :class:`RollBackError`.

    A hook cannot end an iteration by returning: the hooks after it would step the schedulers and
    save the failed weights. Several hooks may call it.

    Args:
        runner: A runner in training. Its loop's ``run_epoch`` or ``run_iter`` is wrapped.
    """
    loop = runner.train_loop
    name = 'run_epoch' if hasattr(loop, 'run_epoch') else 'run_iter'
    work: Callable[..., None] = getattr(loop, name)

    def guarded(*args: object, **kwargs: object) -> None:
        try:
            work(*args, **kwargs)
        except RollBackError as error:
            error.go_back(runner, str(error))

    setattr(loop, name, guarded)


def checkpoint_hook(runner: Runner) -> MMEngineCheckpointHook:
    """The runner's CheckpointHook.

    Raises:
        ConfigError: There is none.
    """
    hook = find_checkpoint_hook(runner)
    if hook is None:
        raise ConfigError(
            'going back to the last good checkpoint needs checkpoints: add a CheckpointHook to '
            "default_hooks, or set default_hooks.guard.policy='stop'"
        )
    return hook


def check_can_roll_back(runner: Runner) -> None:
    """Refuse a training that cannot go back to one of its checkpoints.

    DeepSpeed's checkpoints are folders of DeepSpeed's files, which :func:`restore` cannot read.
    mmengine cannot continue in the middle of an epoch: it would run the whole epoch again, and the
    number of iterations would exceed that of the schedules.

    Raises:
        ConfigError: There is no CheckpointHook, or it saves by iteration in a loop of epochs, or
            DeepSpeed saves.
    """
    hook = checkpoint_hook(runner)
    if isinstance(getattr(runner, 'strategy', None), DeepSpeedStrategy):
        raise ConfigError(
            "policy='rollback' of default_hooks.guard cannot read the checkpoints of DeepSpeed: set policy='stop', "
            'or train with another strategy'
        )
    if hasattr(runner.train_loop, 'run_epoch') and not hook.by_epoch:
        raise ConfigError(
            "policy='rollback' of default_hooks.guard needs checkpoints by epochs in a training by epochs: set "
            'default_hooks.checkpoint.by_epoch=True, or train by iterations with '
            'train_cfg=dict(by_epoch=False, max_iters=...)'
        )


class RunCheckpoints:
    """The interval checkpoints that a failed run may go back to.

    These are its own checkpoints, and those of the resumed run up to the point of the resume. A
    work directory may also contain checkpoints of an earlier run, or of iterations that this run
    has not reached. They belong to other trainings.

    Args:
        runner: A runner whose training has started but has not saved a checkpoint yet.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.hook = find_checkpoint_hook(runner)
        # mmengine has no public attribute for these
        sources = (runner._resume, runner._load_from)  # noqa: SLF001
        resumed = next((path for path in sources if isinstance(path, str)), None)
        start = self._reached()
        # without a name mmengine resumes from the last checkpoint in the work directory
        here = start > 0 and (resumed is None or Path(resumed).resolve().parent == self.folder.resolve())
        self._foreign = {path: time for number, path, time in self._listed() if not (here and number <= start)}
        self._resumed_from = [resumed] if resumed and start > 0 and not here else []

    @property
    def folder(self) -> Path:
        """Folder of the checkpoints."""
        return Path((self.hook and self.hook.out_dir) or self.runner.work_dir)

    def saved(self) -> list[str]:
        """Paths of the checkpoints, the newest (most iterations or epochs) first."""
        if isinstance(self.hook, CheckpointHook):
            self.hook.finish()
        reached = self._reached()
        found = [
            (number, str(path))
            for number, path, time in self._listed()
            if number <= reached and self._foreign.get(path) != time
        ]
        return [path for _, path in sorted(found, reverse=True)] + self._resumed_from

    def good(self, tried: Collection[str] = ()) -> Iterator[str]:
        """Those of :meth:`saved` that are whole and only have finite weights, newest first.

        Args:
            tried: Names of the files from which training failed before; they come last. Defaults
                to ().
        """
        names = must_be_finite(self.runner.model)
        for path in sorted(self.saved(), key=lambda path: Path(path).name in tried):
            try:
                weights = CheckpointLoader.load_checkpoint(path, map_location='cpu')['state_dict']
                refuse_non_finite(weights, names, path)
            except (OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
                self.runner.logger.warning(f'{path} cannot be used and is skipped: {error}')
                continue
            yield path

    def choose(self, tried: Collection[str]) -> str | None:
        """The first of :meth:`good`, or None; all ranks get the same."""
        choice = [next(self.good(tried), None) if dist.is_main_process() else None]
        dist.broadcast_object_list(choice)
        return choice[0]

    def _reached(self) -> int:
        return self.runner.epoch if self.hook is not None and self.hook.by_epoch else self.runner.iter

    def _listed(self) -> Iterator[tuple[int, Path, int]]:
        """Number, path and time of writing of every checkpoint; none if the folder is not local."""
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

    By iterations the data continue: training does not repeat the batches on which it failed. By
    epochs :class:`~addp_mm.engine.hooks.RandomStateHook` gives the epoch that is repeated another
    order.

    Args:
        runner: A runner in training.
        path: Checkpoint of this run.
    """
    hook = checkpoint_hook(runner)
    if isinstance(hook, CheckpointHook):
        hook.finish()  # it would name a later checkpoint afterwards
    # EMAHook and the hooks of this package read their state only if this is set
    resuming = runner._resume  # noqa: SLF001  # mmengine has no public attribute for it
    runner._resume = True  # noqa: SLF001
    try:
        runner.resume(path)
    finally:
        runner._resume = resuming  # noqa: SLF001
    runner.optim_wrapper.zero_grad()
    runner.optim_wrapper.initialize_count_status(runner.model, runner.iter, runner.max_iters)
    if isinstance(hook, CheckpointHook):
        hook.put_gradients_back(runner)
    for timer in runner.hooks:
        if isinstance(timer, IterTimerHook):  # it divides by the iterations since its start
            timer.start_iter, timer.time_sec_tot = runner.iter, 0
    number = re.search(r'(\d+)\D*$', osp.basename(path))
    if number and hasattr(hook, 'keep_ckpt_ids'):
        # Later checkpoints are written again. If they were listed twice, they would be removed too
        # early.
        step = int(number[1])
        hook.keep_ckpt_ids = deque((kept for kept in hook.keep_ckpt_ids if kept <= step), hook.keep_ckpt_ids.maxlen)
    if dist.is_main_process():
        write_text(Path(runner.work_dir, 'last_checkpoint'), path, RESUME)
    empty_cache(default_device())
