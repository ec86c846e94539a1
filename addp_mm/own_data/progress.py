# Copyright (c) addp_mm contributors. Apache-2.0.
"""Progress of a training, and when all stages are expected to end."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from addp_mm.report.logs import records, scalar_files

_LAST_BYTES = 20_000


@dataclass(frozen=True)
class Reading:
    """The last line of a training's log: iterations done, seconds of each, values by name."""

    iteration: int
    seconds: float
    values: Mapping[str, float]


def latest(run_dir: Path) -> Reading | None:
    """Read the end of the newest log of a training.

    Args:
        run_dir: Work dir of tools/train.py.

    Returns:
        None if nothing is logged yet.
    """
    files = scalar_files(run_dir)
    if not files:
        return None
    # Records of validations have no iteration.
    found = [record for record in records(files[-1], _LAST_BYTES) if 'iter' in record and 'time' in record]
    return Reading(int(found[-1]['iter']), float(found[-1]['time']), found[-1]) if found else None


def training_seconds(run_dir: Path) -> float:
    """Seconds of all logged iterations, over all starts."""
    total = 0.0
    for file in scalar_files(run_dir):
        last = 0
        for record in records(file):
            if 'iter' in record and 'time' in record:
                iterations = record['iter'] - last if 0 < last < record['iter'] else 1
                total += record['time'] * iterations
                last = record['iter']
    return total


class Clock:
    """Expected ends of the stages.

    Args:
        expected: Seconds that are left of each stage, in order; 0 for a stage that is done.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected = dict(expected)

    def line(self, stage: str, run_dir: Path, max_iters: int) -> str | None:
        """A line on the progress of a training; None if nothing is logged yet."""
        reading = latest(run_dir)
        if reading is None:
            return None
        self.expect(stage, reading.seconds * max(0, max_iters - reading.iteration))
        loss = f', loss {reading.values["loss"]:.4g}' if 'loss' in reading.values else ''
        done = f'{reading.iteration:,} of {max_iters:,} iterations ({reading.iteration / max_iters:.0%})'
        return f'{stage}: {done}{loss}; {self.ends(stage)}'

    def expect(self, stage: str, seconds: float) -> None:
        """Set the seconds that are left of a stage."""
        self.expected[stage] = seconds

    def ends(self, stage: str) -> str:
        """When the stage that runs, and all later ones, are expected to end."""
        names = list(self.expected)
        rest = sum(self.expected[name] for name in names[names.index(stage) :])
        return f'this stage ends about {time_of_day(self.expected[stage])}, all stages about {time_of_day(rest)}'

    def all_left(self) -> float:
        """Seconds that are left of all stages."""
        return sum(self.expected.values())


def time_of_day(seconds: float) -> str:
    """The time in so many seconds, with the date if it is another day."""
    now = datetime.datetime.now().astimezone()
    then = now + datetime.timedelta(seconds=seconds)
    return then.strftime('%H:%M') if then.date() == now.date() else then.strftime('%a %d %b %H:%M')


def duration(seconds: float) -> str:
    """``3700`` as ``'1 h 01 min'``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min' if hours else f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'
