# Copyright (c) addp_mm contributors. Apache-2.0.
"""The results of a benchmark, read from the files of its steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addp_mm.benchmark.contestants import Contestant
from addp_mm.benchmark.quartiles import quartiles
from addp_mm.report.logs import read_json

MODES = ('inference', 'training')


@dataclass(frozen=True)
class Speed:
    """Images a second in one mode, and the memory.

    Args:
        median: Images a second at the median time of a step.
        low: At the third quartile of the times.
        high: At the first quartile of the times.
        steps: Number of timed steps.
        peak_gib: Largest memory of all turns; None if it was not measured.
    """

    median: float
    low: float
    high: float
    steps: int
    peak_gib: float | None

    @classmethod
    def of(cls, seconds: Sequence[float], peaks: Sequence[int | None], batch_size: int) -> Speed:
        """Summarise the times of steps.

        Args:
            seconds: Time of each step.
            peaks: Peak memory of each turn in bytes.
            batch_size: Images in a step.
        """
        known = [peak for peak in peaks if peak is not None]
        high, median, low = (batch_size / time for time in quartiles(seconds))
        return cls(median, low, high, len(seconds), max(known) / 2**30 if known else None)


@dataclass(frozen=True)
class Score:
    """A metric over the seeds, in percent.

    Args:
        by_seed: Value by seed.
    """

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean of the seeds."""
        return statistics.mean(self.by_seed.values())

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None with one seed."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


@dataclass
class Row:
    """Everything that is known about a contestant.

    Attributes:
        contestant: The contestant.
        batch_size: Images in a step; None if nothing could be measured.
        img_size: Height and width in pixels; None if nothing could be measured.
        precision: Such as 'float32'; None without timed steps.
        parameters: Numbers of parameters of 'backbone' and 'model'.
        macs: Multiply-adds of one image in 'backbone' and 'model'.
        speed: By mode, 'inference' and 'training'.
        scores: By title of the metric.
        failures: Causes, in one line each.
    """

    contestant: Contestant
    batch_size: int | None = None
    img_size: tuple[int, int] | None = None
    precision: str | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    speed: dict[str, Speed] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add_count(self, path: Path) -> None:
        """Read the counts that tools/analysis_tools/get_flops.py wrote."""
        model = read_json(path)['cost']
        parts = [('model', model)]
        parts += [('backbone', child) for child in model['children'] if child['name'] == 'backbone']
        for part, cost in parts:
            self.parameters[part] = cost['trained'] + cost['frozen']
            self.macs[part] = cost['flops'] // 2  # a multiply-add counts as two operations

    def add_turns(self, paths: Sequence[Path]) -> None:
        """Read the turns that tools/benchmarks/step_time.py wrote."""
        turns = [read_json(path)['configs'][0] for path in paths]
        if not turns:
            return
        self.precision = turns[0]['precision']
        for mode in MODES:
            seconds = [time for turn in turns for time in turn['modes'][mode]['seconds']]
            peaks = [turn['modes'][mode]['peak_bytes'] for turn in turns]
            self.speed[mode] = Speed.of(seconds, peaks, turns[0]['batch_size'])

    def record(self) -> dict[str, Any]:
        """The row for the JSON file."""
        one = self.contestant
        return dict(
            data=one.data,
            task=one.task,
            backbone=one.backbone,
            title=one.title,
            config=None if one.failure else str(one.config),
            batch_size=self.batch_size,
            img_size=self.img_size and list(self.img_size),
            precision=self.precision,
            parameters=self.parameters,
            macs=self.macs,
            images_per_second={mode: vars(speed) for mode, speed in self.speed.items()},
            metrics={
                title: dict(mean=score.mean, standard_deviation=score.spread, by_seed=dict(score.by_seed))
                for title, score in self.scores.items()
            },
            failures=self.failures,
        )
