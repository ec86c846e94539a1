# Copyright (c) addp_mm contributors. Apache-2.0.
"""Progress of a training, and the expected ends of the stages."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from addp_mm.report.logs import records, scalar_files

_LAST_BYTES = 20_000


def latest(run_dir: Path) -> dict | None:
    """The last training record in the newest log of a training; None if nothing is logged yet."""
    found = [record for file in scalar_files(run_dir)[-1:] for record in _training_records(file, _LAST_BYTES)]
    return found[-1] if found else None


def training_seconds(run_dir: Path) -> float:
    """Seconds of all logged iterations, over all starts.

    A record has the mean time of the iterations since the one before it. The first record of a
    training counts all iterations before it; that of a resumed one, of which nobody noted where it
    began, as many as there are between two records.
    """
    total, interval = 0.0, 1
    for number, file in enumerate(scalar_files(run_dir)):
        found = list(_training_records(file))
        steps = [record['iter'] for record in found]
        interval = next((step - before for before, step in pairwise(steps) if step > before), interval)
        last = 0 if number == 0 else max(0, steps[0] - interval) if steps else 0
        for record in found:
            iterations = record['iter'] - last if last < record['iter'] else 1
            total += record['time'] * iterations
            last = record['iter']
    return total


def _training_records(file: Path, last_bytes: int | None = None) -> Iterator[dict]:
    # records of validations have no iteration
    return (record for record in records(file, last_bytes) if 'iter' in record and 'time' in record)


class Clock:
    """Expected ends of the stages.

    Args:
        expected: Remaining seconds of each stage, in order; 0 for a finished stage.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected = dict(expected)

    def line(self, stage: str, run_dir: Path, max_iters: int) -> str | None:
        """A line on the progress of a training; None if nothing is logged yet."""
        record = latest(run_dir)
        if record is None:
            return None
        done = record['iter']
        self.expect(stage, record['time'] * max(0, max_iters - done))
        loss = f', loss {record["loss"]:.4g}' if 'loss' in record else ''
        return f'{stage}: {done:,} of {max_iters:,} iterations ({done / max_iters:.0%}){loss}; {self.ends(stage)}'

    def expect(self, stage: str, seconds: float) -> None:
        """Set the remaining seconds of a stage."""
        self.expected[stage] = seconds

    def ends(self, stage: str) -> str:
        """Expected ends of the running stage and of all stages, as text."""
        names = list(self.expected)
        rest = sum(self.expected[name] for name in names[names.index(stage) :])
        return f'this stage ends about {time_of_day(self.expected[stage])}, all stages about {time_of_day(rest)}'

    def all_left(self) -> float:
        """Remaining seconds of all stages."""
        return sum(self.expected.values())


def time_of_day(seconds: float) -> str:
    """The time of day in ``seconds`` seconds, with the date if it is another day."""
    now = datetime.datetime.now().astimezone()
    then = now + datetime.timedelta(seconds=seconds)
    return then.strftime('%H:%M') if then.date() == now.date() else then.strftime('%a %d %b %H:%M')


def duration(seconds: float) -> str:
    """``3700`` as ``'1:01:40'``."""
    return str(datetime.timedelta(seconds=round(seconds)))
