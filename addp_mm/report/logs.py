# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the files that mmengine's loggers and tools/test.py write into a work dir."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image


class LogError(RuntimeError):
    """A log or a result that a report needs is missing or damaged."""


def scalar_files(work_dir: Path) -> list[Path]:
    """``WORK_DIR/START_TIME/vis_data/scalars.json`` of each start, in order."""
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def records(file: Path, last_bytes: int | None = None) -> Iterator[dict]:
    """The records of a ``scalars.json``, in order. Incomplete lines are skipped.

    Args:
        file: The log.
        last_bytes: Number of bytes to read at its end. Defaults to None: the whole file.
    """
    with file.open('rb') as stream:
        if last_bytes is not None:
            stream.seek(max(0, stream.seek(0, 2) - last_bytes))
        lines = stream.read().decode(errors='replace').splitlines()
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def read_curve(work_dir: Path, name: str = 'loss') -> list[tuple[int, float]]:
    """The values of a scalar of the training, or of its validations, over the iterations.

    Values of a resumed run replace those of the earlier run for the same iterations.

    Args:
        work_dir: Work dir of tools/train.py.
        name: Name of the scalar. Defaults to 'loss'.

    Returns:
        Pairs (iteration, value), ascending.

    Raises:
        LogError: There is no log, or no log has the scalar.
    """
    files = scalar_files(work_dir)
    if not files:
        raise LogError(
            f'{work_dir} has no */vis_data/scalars.json: the training did not start, or its visualizer has no '
            'LocalVisBackend'
        )
    values: dict[int, float] = {}
    seen: set[str] = set()
    for record in (record for file in files for record in records(file)):
        seen |= record.keys()
        step = record.get('step', record.get('iter'))  # a validation has no 'iter'
        if name in record and step is not None:
            step = int(step)
            values = {known: value for known, value in values.items() if known < step}
            values[step] = float(record[name])
    if not values:
        raise LogError(f'the logs in {work_dir} have no {name!r}; they have {", ".join(sorted(seen)) or "nothing"}')
    return sorted(values.items())


def read_json(path: Path) -> Any:
    """Read a JSON file that a training or a test wrote.

    Raises:
        LogError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise LogError(f'{path} is missing: the step that writes it has not run, or has failed') from error
    except ValueError as error:
        raise LogError(f'{path} is not JSON ({error}): delete it and run the step again') from error


def read_image(path: Path) -> Image.Image:
    """Read an image that a training or a test wrote.

    Raises:
        LogError: The file is missing.
    """
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise LogError(f'{path} is missing: the step that writes it has not run, or has failed') from error


def read_previews(work_dir: Path, name: str) -> list[tuple[int, Image.Image]]:
    """Images that hooks sent to the visualizer of the latest start.

    Args:
        work_dir: Work dir of tools/train.py.
        name: Name of the images.

    Returns:
        Pairs (iteration, image), ascending.

    Raises:
        LogError: There is none.
    """
    folders = sorted(Path(work_dir).glob('*/vis_data/vis_image'))
    files = folders[-1].glob(f'{name}_*.png') if folders else []
    found = sorted((int(file.stem.rpartition('_')[2]), file) for file in files)
    if not found:
        raise LogError(f'{work_dir} has no */vis_data/vis_image/{name}_*.png')
    return [(step, Image.open(file).convert('RGB')) for step, file in found]
