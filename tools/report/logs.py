# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reading what mmengine's loggers leave in a work dir."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image


class LogError(RuntimeError):
    """A log or a result that a report needs is missing or cannot be read."""


def _records(work_dir: Path) -> Iterator[dict]:
    """All records of ``<work_dir>/<start time>/vis_data/scalars.json``, in the order of the starts."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise LogError(f'{work_dir} holds no */vis_data/scalars.json: the training there did not start, or its '
                       'visualizer has no LocalVisBackend')
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise LogError(f'{file}, line {number}, is not JSON ({error}); run the training again') from error


def read_curve(work_dir: Path, name: str = 'loss') -> list[tuple[int, float]]:
    """The values of ``name`` over the iterations; a resumed run goes on where the earlier one was left.

    Returns:
        (iteration, value) pairs, ascending.

    Raises:
        LogError: If no log is there, or none tells ``name``.
    """
    values: dict[int, float] = {}
    seen: set[str] = set()
    for record in _records(work_dir):
        seen |= record.keys()
        if name in record and 'iter' in record:
            step = int(record.get('step', record['iter']))
            values = {known: value for known, value in values.items() if known < step}
            values[step] = float(record[name])
    if not values:
        raise LogError(f'the logs in {work_dir} do not tell {name!r}; they tell {", ".join(sorted(seen)) or "nothing"}')
    return sorted(values.items())


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics that tools/test.py wrote.

    Raises:
        LogError: If the file is missing or is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise LogError(f'{path} is missing: the test that writes it has not run, or has failed')
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LogError(f'{path} is not JSON ({error}); delete it and run the test again') from error


def read_pictures(work_dir: Path, name: str) -> list[tuple[int, Image.Image]]:
    """Pictures called ``name`` that hooks sent to the visualizer of the latest start.

    Returns:
        (iteration, picture) pairs, ascending.

    Raises:
        LogError: If there is none.
    """
    folders = sorted(Path(work_dir).glob('*/vis_data/vis_image'))
    files = folders[-1].glob(f'{name}_*.png') if folders else []
    found = sorted((int(file.stem.rpartition('_')[2]), file) for file in files)
    if not found:
        raise LogError(f'{work_dir} holds no */vis_data/vis_image/{name}_*.png')
    return [(step, Image.open(file).convert('RGB')) for step, file in found]
