# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reading what mmengine's loggers leave in a work dir."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image


class LogError(RuntimeError):
    """A log or a result that a report needs is missing or cannot be read."""


def scalar_files(work_dir: Path) -> list[Path]:
    """``<work_dir>/<start time>/vis_data/scalars.json``, in the order of the starts."""
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def records(file: Path, last_bytes: int | None = None) -> Iterator[dict]:
    """What a ``scalars.json`` holds, or its last bytes, in order; lines that a kill or a full disk cut are left out."""
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
    """The values of ``name`` over the iterations; a resumed run goes on where the earlier one was left.

    Returns:
        (iteration, value) pairs, ascending.

    Raises:
        LogError: If no log is there, or none tells ``name``.
    """
    files = scalar_files(work_dir)
    if not files:
        raise LogError(
            f'{work_dir} holds no */vis_data/scalars.json: the training there did not start, or its '
            'visualizer has no LocalVisBackend'
        )
    values: dict[int, float] = {}
    seen: set[str] = set()
    for record in (record for file in files for record in records(file)):
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
