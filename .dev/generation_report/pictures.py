# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures of the page of generation: charts, and grids of samples with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from addp_mm.checkpoints.atomic_write import atomic_path, write_text
from addp_mm.generation.figures import MARGIN, image_grid
from addp_mm.report.figures import Points, line_charts
from addp_mm.report.logs import read_image
from addp_mm.report.palette import COLOURS
from generation_report.cells import Cell
from generation_report.study import Study

SAMPLES = 10  # of a line, in the grid of schedules
SAMPLES_OF_A_CLASS = 3
_NAME_WIDTH, _HEAD_HEIGHT = 74, 16
_WEBP = dict(quality=90, method=6)


def write_chart(path: Path, charts: Mapping[str, Mapping[str, Points]], x_label: str) -> None:
    """Write line charts side by side, as SVG."""
    names = dict.fromkeys(name for lines in charts.values() for name in lines)
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    picture = line_charts(charts, x_label, colours)
    write_text(path, picture.content.decode())


def write_distances(study: Study, path: Path) -> None:
    """Write the chart of the distances against steps, unconditional beside conditional."""
    lines = {'Scenes without classes': study.schedules(), 'Single garments': study.guidances()}
    charts = {
        title: {line.title: [(steps, study.fid(Cell(line, steps))) for steps in study.extent.steps] for line in some}
        for title, some in lines.items()
        if some
    }
    write_chart(path, charts, 'steps')


def write_schedule_samples(study: Study, path: Path) -> None:
    """Write the first samples of each schedule, one row for each."""
    count = min(SAMPLES, study.commands.num_images)
    rows = {line.title: samples(study, Cell(line, study.detail_steps), range(count)) for line in study.schedules()}
    write_grid(path, rows)


def write_class_samples(study: Study, classes: Sequence[str], path: Path) -> None:
    """Write samples of all classes: a row for each class, some columns for each scale."""
    lines = study.guidances()
    # image i has class i modulo the number of classes
    numbers = range(min(SAMPLES_OF_A_CLASS, study.commands.num_images // len(classes)))
    rows = {
        name: [
            image
            for line in lines
            for image in samples(
                study, Cell(line, study.detail_steps), [label + len(classes) * number for number in numbers]
            )
        ]
        for label, name in enumerate(classes)
    }
    write_grid(path, rows, [line.title for line in lines])


def samples(study: Study, cell: Cell, numbers: Sequence[int]) -> list[np.ndarray]:
    """Images of a cell by their numbers."""
    folder = study.commands.folder(cell) / 'images'
    return [np.asarray(read_image(folder / f'{number:06d}.png').convert('RGB')) for number in numbers]


def write_grid(path: Path, rows: Mapping[str, Sequence[np.ndarray]], heads: Sequence[str] = ()) -> None:
    """Write rows of images with their names, as WebP.

    Args:
        path: The file.
        rows: As many images of one size in each row, by its name.
        heads: Names of groups of columns of one width. Defaults to (): none.
    """
    grid = image_grid([image for row in rows.values() for image in row], columns=len(next(iter(rows.values()))))
    top = _HEAD_HEIGHT if heads else 0
    sheet = Image.new('RGB', (_NAME_WIDTH + grid.shape[1], top + grid.shape[0]), 'white')
    sheet.paste(Image.fromarray(grid), (_NAME_WIDTH, top))
    draw = ImageDraw.Draw(sheet)
    height = (grid.shape[0] - MARGIN) / len(rows)
    for index, name in enumerate(rows):
        draw.text((MARGIN, top + MARGIN + (index + 0.4) * height), name, fill='black')
    for index, head in enumerate(heads):
        draw.text((_NAME_WIDTH + MARGIN + index * grid.shape[1] / len(heads), MARGIN), head, fill='black')
    with atomic_path(path) as partial:
        sheet.save(partial, 'webp', **_WEBP)
