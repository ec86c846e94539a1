# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stop trainings at random, and compare what they wrote with an uninterrupted training."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import runpy
import sys
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.checkpoints.training_state import differences

ROOT = Path(__file__).parents[2]
STATUS = dict(SIGINT=130, SIGTERM=75, SIGKILL=-9)
_CLOCKS = {'time', 'data_time', 'memory', 'eta'}


def choose(what: str, iterations: int) -> dict:
    """Arguments of ``KillAt``; no seed, so that over many runs of the tests each case is tested."""
    rng = random.SystemRandom()
    chosen = dict(iteration=rng.randrange(iterations), signal=rng.choice(list(STATUS)))
    print(f'{what}: {chosen["signal"]} in iteration {chosen["iteration"]} of 0 to {iterations - 1}')
    return chosen


def in_a_fork(log: Path, work, *arguments) -> tuple[int, str]:
    """Call a function in a process of its own; return the exit status and the output."""
    process = multiprocessing.get_context('fork').Process(target=_with_log, args=(log, work, arguments))
    process.start()
    process.join()
    return process.exitcode, log.read_text(errors='replace')


def run_train(*arguments) -> None:
    """Run tools/train.py in this process."""
    sys.argv = ['train.py', *map(str, arguments)]
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


def _with_log(log: Path, work, arguments: tuple) -> None:
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    work(*arguments)


def logged(work_dir: Path) -> dict:
    """All logged numbers by iteration; the numbers of a resumed training come last."""
    found: dict[int, dict] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found.setdefault(row['step'], {}).update({key: row[key] for key in row.keys() - _CLOCKS})
    return found


def assert_equal_trainings(whole: Path, parts: Path, checkpoint: str) -> None:
    """Compare the last checkpoints bit for bit, and all logged numbers."""
    one, other = (CheckpointLoader.load_checkpoint(str(path / checkpoint), 'cpu') for path in (whole, parts))
    assert one['optimizer']
    assert one['message_hub']['log_scalars']
    assert differences(one, other) == []
    numbers = logged(whole)
    assert any('loss' in row for row in numbers.values())
    assert numbers == logged(parts)
