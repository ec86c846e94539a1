# Copyright (c) addp_mm contributors. Apache-2.0.
"""How far a training is, and when all of them will have ended."""
from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LAST_BYTES = 20_000


@dataclass(frozen=True)
class Reading:
    """The latest word of a training's log: iterations done, seconds each, and values by name."""
    iteration: int
    seconds: float
    values: Mapping[str, float]


def latest(run_dir: Path) -> Reading | None:
    """Read the end of the newest ``scalars.json`` below a work dir of tools/train.py; None where nothing is logged."""
    files = sorted(run_dir.glob('*/vis_data/scalars.json'))
    if not files:
        return None
    with files[-1].open('rb') as file:
        file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
        lines = file.read().decode(errors='replace').splitlines()
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            # the first of these lines may be cut, and the last one in writing
            continue
        # validations have no number of iterations
        if 'iter' in record and 'time' in record:
            return Reading(int(record['iter']), float(record['time']), record)
    return None


def training_seconds(run_dir: Path) -> float:
    """Time of all logged iterations, those of earlier starts included."""
    total = 0.
    for file in sorted(run_dir.glob('*/vis_data/scalars.json')):
        last = None
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if 'iter' in record and 'time' in record:
                total += record['time'] * (record['iter'] - last if last is not None and last < record['iter'] else 1)
                last = record['iter']
    return total


class Clock:
    """Expected ends.

    Args:
        expected: Seconds of each stage, as far as trials tell, in order; stages that are done have 0.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected = dict(expected)

    def line(self, stage: str, run_dir: Path, max_iters: int) -> str | None:
        """How far a stage is, and when it and all others are expected to end."""
        reading = latest(run_dir)
        if reading is None:
            return None
        left = reading.seconds * max(0, max_iters - reading.iteration)
        later = list(self.expected)[list(self.expected).index(stage) + 1:]
        self.expected[stage] = left
        whole = left + sum(self.expected[name] for name in later)
        loss = f', loss {reading.values["loss"]:.4g}' if 'loss' in reading.values else ''
        return (f'{stage}: {reading.iteration:,} of {max_iters:,} iterations ({reading.iteration / max_iters:.0%})'
                f'{loss}; this stage ends about {at(left)}, all of them about {at(whole)}')

    def all_left(self) -> float:
        return sum(self.expected.values())


def at(seconds: float) -> str:
    """The time of day in so many seconds, with the day where it is another one."""
    now = datetime.datetime.now().astimezone()
    then = now + datetime.timedelta(seconds=seconds)
    return then.strftime('%H:%M') if then.date() == now.date() else then.strftime('%a %d %b %H:%M')


def duration(seconds: float) -> str:
    """``3700`` as ``1 h 01 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min' if hours else f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'
