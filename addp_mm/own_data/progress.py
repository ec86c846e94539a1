# Copyright (c) addp_mm contributors. Apache-2.0.
"""How far a training is, and when all of them will have ended."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from addp_mm.report.logs import records, scalar_files

_LAST_BYTES = 20_000


@dataclass(frozen=True)
class Reading:
    """The latest word of a training's log: iterations done, seconds each, and values by name."""

    iteration: int
    seconds: float
    values: Mapping[str, float]


def latest(run_dir: Path) -> Reading | None:
    """Read the end of the newest ``scalars.json`` below a work dir of tools/train.py; None where nothing is logged."""
    files = scalar_files(run_dir)
    # validations have no number of iterations
    found = (
        [record for record in records(files[-1], _LAST_BYTES) if 'iter' in record and 'time' in record] if files else []
    )
    return Reading(int(found[-1]['iter']), float(found[-1]['time']), found[-1]) if found else None


def training_seconds(run_dir: Path) -> float:
    """Time of all logged iterations, those of earlier starts included."""
    total = 0.0
    for file in scalar_files(run_dir):
        last = None
        for record in records(file):
            if 'iter' in record and 'time' in record:
                total += record['time'] * (record['iter'] - last if last is not None and last < record['iter'] else 1)
                last = record['iter']
    return total


class Clock:
    """Expected ends.

    Args:
        expected: Seconds of each stage, as far as trials tell, in order; stages that are done have
            0.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected = dict(expected)

    def line(self, stage: str, run_dir: Path, max_iters: int) -> str | None:
        """How far a training is, and when it and all others are expected to end."""
        reading = latest(run_dir)
        if reading is None:
            return None
        self.expect(stage, reading.seconds * max(0, max_iters - reading.iteration))
        loss = f', loss {reading.values["loss"]:.4g}' if 'loss' in reading.values else ''
        return (
            f'{stage}: {reading.iteration:,} of {max_iters:,} iterations ({reading.iteration / max_iters:.0%})'
            f'{loss}; {self.ends(stage)}'
        )

    def expect(self, stage: str, seconds: float) -> None:
        """Note what is left of a stage."""
        self.expected[stage] = seconds

    def ends(self, stage: str) -> str:
        """When a stage that is being worked at, and all later ones, are expected to end."""
        names = list(self.expected)
        whole = sum(self.expected[name] for name in names[names.index(stage) :])
        return f'this stage ends about {at(self.expected[stage])}, all of them about {at(whole)}'

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
