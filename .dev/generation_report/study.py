# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is measured of generation, and what was found."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addp_mm.benchmark.step_runner import StepRunner
from addp_mm.checkpoints.reading import resolve_asset
from addp_mm.checks.weights import initial_weights
from addp_mm.config.config_file import load_config
from addp_mm.report.logs import LogError, read_json
from addp_mm.report.machine import cores
from generation_report.cells import Cell, Commands, Line, Model, slug

# The published temperature of 6 is for 256 tokens; the nano weights have 64.
COSINE = ('--temperature', '2', '--top-p', '0.95')
# found by the search with earlier nano weights
HALTON = ('--schedule', 'power:3.1', '--order', 'halton', '--top-p', '0.69')
SCHEDULES = {'published': (), 'cosine': COSINE, 'linear': ('--schedule', 'linear', *COSINE), 'Halton': HALTON}
_RATE = re.compile(r'([\d.]+)(img/s|s/img)')


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        steps: Numbers of steps, the columns of the tables.
        schedules: Names of the schedules of :data:`SCHEDULES`.
        guidances: Scales of the guidance.
        turns: How often the rates are measured.
        trials: Trials of the search; 0: no search.
        with_quality: Whether empty scenes and named garments are counted. This trains a classifier.
    """

    steps: tuple[int, ...] = (4, 8, 16, 32)
    schedules: tuple[str, ...] = tuple(SCHEDULES)
    guidances: tuple[float, ...] = (0, 1, 3)
    turns: int = 3
    trials: int = 40
    with_quality: bool = True


SHORT = Extent((2,), ('cosine',), (1,), 1, 0, with_quality=False)


@dataclass(frozen=True)
class Study:
    """All measurements.

    Args:
        commands: Their commands.
        extent: How much is measured.
        scenes: Unconditional weights.
        garments: Weights with a class for each garment, or None.
        earlier: Earlier unconditional weights, or None.
        extractors: Networks of the features. The first one is that of the tables.
    """

    commands: Commands
    extent: Extent
    scenes: Model
    garments: Model | None
    earlier: Model | None
    extractors: tuple[str, ...]

    @property
    def detail_steps(self) -> int:
        """Number of steps of the search, of the detailed tables and of the figures."""
        return 8 if 8 in self.extent.steps else self.extent.steps[0]

    @property
    def models(self) -> list[Model]:
        """All weights."""
        return [model for model in (self.scenes, self.garments, self.earlier) if model]

    def schedules(self) -> list[Line]:
        """A line for each schedule; the last one is that of a finished search."""
        lines = [Line(name, self.scenes, SCHEDULES[name]) for name in self.extent.schedules]
        return [*lines, *([self.searched()] if self.extent.trials and self.commands.trials.is_file() else [])]

    def searched(self) -> Line:
        """The best schedule of the search."""
        words = shlex.split(read_json(self.commands.trials)['best']['options'])
        at = words.index('--steps')
        return Line('searched', self.scenes, tuple(words[:at] + words[at + 2 :]))

    def guidances(self) -> list[Line]:
        """A line for each scale of the guidance; none without such weights."""
        if self.garments is None:
            return []
        return [
            Line(f'guidance {scale:g}', self.garments, (*(('--guidance', f'{scale:g}') if scale else ()), *HALTON))
            for scale in self.extent.guidances
        ]

    def detail(self) -> list[Cell]:
        """The cells of scenes in the detailed table, with those of the earlier weights."""
        earlier = [Line('earlier weights', self.earlier, HALTON)] if self.earlier else []
        return [Cell(line, self.detail_steps) for line in (*self.schedules(), *earlier)]

    def cells(self) -> list[Cell]:
        """All cells."""
        lines = (*self.schedules(), *self.guidances())
        cells = [Cell(line, steps) for line in lines for steps in self.extent.steps]
        return [*cells, *(cell for cell in self.detail() if cell not in cells)]

    def timed_lines(self) -> list[Line]:
        """The lines whose rate is measured: without guidance, and with it."""
        return [Line('no guidance', self.scenes, HALTON), *self.guidances()[-1:]]

    def timed(self) -> list[tuple[Line, int]]:
        """Lines and numbers of steps whose rate is measured."""
        return [(line, steps) for line in self.timed_lines() for steps in self.extent.steps]

    @property
    def threads(self) -> str:
        """CPU threads with which the rates are measured."""
        return StepRunner(self.commands.work_dir, 1, cores()).environment['OMP_NUM_THREADS']

    @property
    def load_file(self) -> Path:
        """The load of the machine before the rates were measured."""
        return self.commands.work_dir / 'results/load.json'

    def fid(self, cell: Cell, extractor: str | None = None) -> float:
        """The Fréchet distance of a cell."""
        return self.score(cell, 'fid', extractor)

    def score(self, cell: Cell, name: str, extractor: str | None = None) -> float:
        """A score of a cell, by the start of its key.

        Raises:
            LogError: It was not measured.
        """
        path = self.commands.scores(cell, extractor or self.extractors[0])
        for key, value in read_json(path)['metrics'].items():
            if key.partition('[')[0] == name:
                return value
        raise LogError(f'{path} has no {name}: delete it and run the script again')

    def rates(self, line: Line, steps: int) -> tuple[float, float, float]:
        """Median, smallest and largest number of images a second of all turns."""
        found = [_rate(self.commands.work_dir / 'logs' / f'{name}.log') for name in self.rate_names(line, steps)]
        return statistics.median(found), min(found), max(found)

    def rate_names(self, line: Line, steps: int) -> list[str]:
        """Names of the steps that measure a rate."""
        return [slug(f'rate {line.title} {steps} {turn}') for turn in range(self.extent.turns)]


def weight_files(model: Model) -> list[Path]:
    """Local files of all weights of a model, those of its frozen components too."""
    cfg = load_config(model.config)
    names = [model.checkpoint, *initial_weights(cfg).values()]
    paths = [Path(resolve_asset(name)) for name in names if name.startswith('addp_mm://') or '://' not in name]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _rate(log: Path) -> float:
    """Images a second at the end of the progress bar of ``addp generate``."""
    found: Sequence[tuple[str, str]] = _RATE.findall(log.read_text(errors='replace')) if log.is_file() else ()
    if not found:
        raise LogError(f'{log} has no rate: delete the file of its step in {log.parents[1] / "stamps"}, and run again')
    value, unit = found[-1]
    return float(value) if unit == 'img/s' else 1 / float(value)
