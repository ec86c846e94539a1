# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is measured: cells of tables, each with the commands that give its numbers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BATCH_SIZE = 50
_COLUMNS = 98  # without the backslash
SEARCH_SEED, SEED = 0, 1  # the best trial of a search looks better than it is in the noise of the search
SEARCH_IMAGES = 200  # in each trial


@dataclass(frozen=True)
class Model:
    """Weights that generate images.

    Args:
        name: First part of the names of its cells.
        config: Config of its pre-training.
        checkpoint: Path or ``addp_mm://NAME`` of its weights.
        reference: Folder of the data set with the real images.
        common: Options of ``addp generate`` for all of its images. Defaults to (): none.
    """

    name: str
    config: str
    checkpoint: str
    reference: str
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of a table, and of the chart.

    Args:
        title: Its name.
        model: The weights.
        options: Options of ``addp generate`` besides the number of steps.
    """

    title: str
    model: Model
    options: tuple[str, ...]

    @property
    def text(self) -> str:
        """The options as you type them."""
        return f'`{shlex.join(self.options)}`' if self.options else 'none'


@dataclass(frozen=True)
class Cell:
    """Images of one line and one number of steps."""

    line: Line
    steps: int

    @property
    def name(self) -> str:
        """Name of its folder and of its steps."""
        return slug(f'{self.line.model.name} {self.line.title} {self.steps}')

    @property
    def title(self) -> str:
        """Describes the cell to the user."""
        return f'{self.line.model.name}, {self.line.title}, {self.steps} steps'


@dataclass(frozen=True)
class Commands:
    """The command of each measurement, as arguments after ``python``.

    Args:
        work_dir: Folder of all results.
        data_root: Folder of FashionScenes.
        num_images: Generated images in a cell.
        device: Name of the device.
    """

    work_dir: Path
    data_root: Path
    num_images: int
    device: str

    def folder(self, cell: Cell) -> Path:
        """The folder that ``addp generate`` writes."""
        return self.work_dir / 'images' / cell.name

    def scores(self, cell: Cell, extractor: str) -> Path:
        """The file that ``addp evaluate-images`` writes."""
        return self.work_dir / 'results' / f'{cell.name}_{slug(extractor)}.json'

    @property
    def timed_images(self) -> int:
        """Images of :meth:`time`."""
        return max(1, self.num_images // 20)

    @property
    def trials(self) -> Path:
        """The file that the search writes."""
        return self.work_dir / 'search/trials.json'

    @property
    def qualities(self) -> Path:
        """The file with the shares of empty scenes and named garments."""
        return self.work_dir / 'results/scene_quality.json'

    def generate(self, cell: Cell) -> tuple[str, ...]:
        """Generate the images of a cell."""
        return self._generate(cell.line, cell.steps, self.num_images, self.folder(cell))

    def time(self, line: Line, steps: int, turn: int) -> tuple[str, ...]:
        """Generate a few images, to read the rate in the log."""
        return self._generate(line, steps, self.timed_images, self.timing_folder(line, steps, turn))

    def timing_folder(self, line: Line, steps: int, turn: int) -> Path:
        """The folder of :meth:`time`."""
        return self.work_dir / 'rates' / slug(f'{line.title} {steps} {turn}')

    def _generate(self, line: Line, steps: int, num_images: int, out: Path) -> tuple[str, ...]:
        numbers = dict(num_images=num_images, batch_size=BATCH_SIZE, seed=SEED, steps=steps)
        given = [word for key, value in numbers.items() for word in (f'--{key.replace("_", "-")}', str(value))]
        command = ('-m', 'addp_mm', 'generate', line.model.config, line.model.checkpoint, '--out', str(out), *given)
        return (*command, *line.model.common, *line.options, '--device', self.device)

    def evaluate(self, cell: Cell, extractor: str) -> tuple[str, ...]:
        """Compare the images of a cell with the real ones."""
        images, reference = self.folder(cell) / 'images', self.data_root / cell.line.model.reference
        command = ('-m', 'addp_mm', 'evaluate-images', str(images), str(reference), '--extractor', extractor)
        where = ('--out', str(self.scores(cell, extractor)), '--device', self.device)
        return (*command, '--metrics', 'fid', 'prc', *where)

    def search(self, model: Model, extractor: str, steps: int, trials: int) -> tuple[str, ...]:
        """Search the schedule with the smallest distance, with fewer images."""
        numbers = dict(steps=steps, trials=trials, num_images=min(SEARCH_IMAGES, self.num_images), seed=SEARCH_SEED)
        given = [word for key, value in numbers.items() for word in (f'--{key.replace("_", "-")}', str(value))]
        what = (model.config, model.checkpoint, str(self.data_root / model.reference), '--extractor', extractor)
        where = ('--out', str(self.trials.parent), '--device', self.device)
        return ('tools/analysis_tools/search_schedule.py', *what, *given, *where)

    def quality(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """Shares of empty scenes and of scenes with a named garment, of several cells."""
        images = [str(self.folder(cell) / 'images') for cell in cells]
        where = ('--work-dir', str(self.work_dir / 'scene_classifier'), '--out', str(self.qualities))
        return ('.dev/scene_quality.py', *images, '--data-root', str(self.data_root), *where, '--device', self.device)


def slug(text: str) -> str:
    """A text with only letters that file names have."""
    return re.sub(r'[^\w.]+', '-', text)


def shown(command: Sequence[str]) -> str:
    """A command as you type it, on several lines. Options stay beside their values."""
    words = ['addp', *command[2:]] if command[:2] == ('-m', 'addp_mm') else ['python', *command]
    groups: list[str] = []
    for word in map(shlex.quote, words):
        if groups and groups[-1].startswith('-') and not word.startswith('-'):
            groups[-1] += f' {word}'
        else:
            groups.append(word)
    lines = groups[:1]
    for group in groups[1:]:
        if len(lines[-1]) + len(group) < _COLUMNS:
            lines[-1] += f' {group}'
        else:
            lines.append(f'    {group}')
    return ' \\\n'.join(lines)
