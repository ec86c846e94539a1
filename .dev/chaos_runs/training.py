# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training in a process of its own that may be ended at any moment."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos_runs.kinds import ROOT

LIMIT = 300.0  # seconds after which a training counts as hanging
_TIMES = ('time', 'data_time', 'memory', 'eta')  # of a log; they differ between runs
_MODULES = (
    'pycocotools.mask',
    'matplotlib.pyplot',
    'torch.utils.tensorboard',
    'addp_mm.checks.check_list',
    'addp_mm.engine.hooks',
    'addp_mm.engine.runner_cfg',
    'addp_mm.models.backbones',
    'addp_mm.models.discriminators',
    'addp_mm.models.heads',
    'addp_mm.models.losses',
    'addp_mm.models.necks',
    'addp_mm.models.predictors',
    'addp_mm.models.selfsup',
    'addp_mm.models.tokenizers',
)
_RESUMED = re.compile(r'resumed epoch: (\d+), iter: (\d+)')


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Args:
        status: Exit status; negative if a signal ended it; None if it hung.
        seconds: Wall time.
        output: What it has printed.
    """

    status: int | None
    seconds: float
    output: str

    @property
    def resumed_at(self) -> int | None:
        """The iteration from which it went on; None if it started at the beginning."""
        found = _RESUMED.findall(self.output)
        return int(found[-1][1]) if found else None

    @property
    def error(self) -> str:
        """Its last line."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ''


def preload(packages: Iterable[str]) -> None:
    """Import what trainings need, so that a process that is forked from this one starts at once.

    Args:
        packages: The packages of the models, such as 'mmdet'.
    """
    import torch

    import addp_mm  # noqa: F401  # before the packages: they need its operators

    torch.set_num_threads(1)
    for package in packages:
        for part in ('models', 'datasets', 'engine', 'evaluation', 'visualization'):
            importlib.import_module(f'{package}.{part}')
    for name in _MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the processes look for garbage among their own objects only


def train(arguments: Sequence[str], log: Path, attack: Callable[[int, float], None] | None = None) -> Ended:
    """Run ``tools/train.py`` in a forked process.

    Args:
        arguments: Its arguments.
        log: File of its output.
        attack: Called again and again with the process and the seconds since its start, while the
            process runs. Defaults to None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()  # the process may be killed before it opens the file
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        _run(arguments, log)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - began
        if ended:
            return Ended(os.waitstatus_to_exitcode(status), seconds, log.read_text(errors='replace'))
        if seconds > LIMIT:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Ended(None, seconds, log.read_text(errors='replace'))
        if attack:
            attack(pid, seconds)
        time.sleep(0.002)


def _run(arguments: Sequence[str], log: Path) -> None:
    status = 1
    try:
        os.setsid()  # a signal to the group reaches the workers, as from a terminal or a scheduler
        with open(log, 'w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, 'w', 1, closefd=False), os.fdopen(2, 'w', 1, closefd=False)
        sys.argv = ['train.py', *arguments]
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def logged(work_dir: Path) -> list[dict[int, dict]]:
    """The logged values of each run in a folder: by iteration, without times."""
    runs = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        values: dict[int, dict] = {}
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a line that was being written
                continue
            step = int(entry.pop('step'))
            entry = {key: value for key, value in entry.items() if not key.endswith(_TIMES)}
            # training and validation of an iteration are two lines
            values.setdefault(step, {}).update(entry)
        runs.append(values)
    return runs
