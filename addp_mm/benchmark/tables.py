# Copyright (c) addp_mm contributors. Apache-2.0.
"""The results as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from addp_mm.benchmark.results import Row, Score, Speed
from addp_mm.benchmark.tasks import DATA, TASKS
from addp_mm.report.markdown import markdown_table

NONE = '–'


@dataclass(frozen=True)
class About:
    """What a report says about its run.

    Args:
        command: The command.
        machine: The machine.
        versions: Versions by name of the package.
        options: Options of the measurement by name.
        date: Day of the report.
    """

    command: str
    machine: str
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    date: str


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each data set and task."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.contestant.data, row.contestant.task), []).append(row)
    return found


def group_title(data: str, task: str) -> str:
    """Heading of a data set and task."""
    return f'{TASKS[task].title} on {DATA[data].title}'


def speed_text(speed: Speed | None) -> str:
    """``'41.2 (39.9 to 42.0)'``: median and quartiles."""
    if speed is None:
        return NONE
    return f'{speed.median:.3g} ({speed.low:.3g} to {speed.high:.3g})'


def score_text(score: Score | None) -> str:
    """``'41.2 ± 0.8'``: mean and sample standard deviation; only the mean of a single seed."""
    if score is None:
        return NONE
    return f'{score.mean:.1f}' if score.spread is None else f'{score.mean:.1f} ± {score.spread:.1f}'


def _millions(row: Row, part: str) -> str:
    return f'{row.parameters[part] / 1e6:.3g}' if part in row.parameters else NONE


def _gmacs(row: Row, part: str) -> str:
    return f'{row.macs[part] / 1e9:.3g}' if part in row.macs else NONE


def _peak(row: Row, mode: str) -> str:
    peak = row.speed[mode].peak_gib if mode in row.speed else None
    return NONE if peak is None else f'{peak:.2f}'


_COLUMNS: dict[str, Callable[[Row], str]] = {
    'backbone': lambda row: row.contestant.title,
    'parameters, M (backbone)': lambda row: f'{_millions(row, "model")} ({_millions(row, "backbone")})',
    'GMACs (backbone)': lambda row: f'{_gmacs(row, "model")} ({_gmacs(row, "backbone")})',
    'inference, images/s': lambda row: speed_text(row.speed.get('inference')),
    'training, images/s': lambda row: speed_text(row.speed.get('training')),
    'inference, GiB': lambda row: _peak(row, 'inference'),
    'training, GiB': lambda row: _peak(row, 'training'),
}


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the rows of one data set and task.

    Columns without any number are left out. A column for each metric follows.
    """
    cells = {name: [column(row) for row in rows] for name, column in _COLUMNS.items()}
    for title in dict.fromkeys(title for row in rows for title in row.scores):
        cells[title] = [score_text(row.scores.get(title)) for row in rows]
    kept = [name for name, texts in cells.items() if not all(set(text) <= set(f'{NONE} ()') for text in texts)]
    return kept, [[cells[name][index] for name in kept] for index in range(len(rows))]


def failures(rows: Sequence[Row]) -> list[str]:
    """What failed, in one line each."""
    return [
        f'{row.contestant.title}, {group_title(row.contestant.data, row.contestant.task)}: {failure}'
        for row in rows
        for failure in row.failures
    ]


def conditions(rows: Sequence[Row]) -> str:
    """Images and precision of a group, in one sentence."""
    first = next((row for row in rows if row.batch_size and row.img_size), None)
    if first is None or first.img_size is None:
        return 'Nothing was measured.'
    precisions = sorted({row.precision for row in rows if row.precision})
    return f'{first.batch_size} images of {first.img_size[0]} x {first.img_size[1]} px in a step' + (
        f', {" and ".join(precisions)}.' if precisions else '.'
    )


def legend(about: About) -> str:
    """How to read the columns."""
    repeats, steps = int(about.options['repeats']), int(about.options['steps'])
    sentences = ['GMACs count one image.']
    if repeats:
        sentences.append(
            f'Images a second are the median of {repeats * steps} steps (in brackets: the quartiles) in {repeats} '
            'turns, between which the backbones alternate. GiB are the peak memory.'
        )
    if about.options.get('seeds'):
        sentences.append(
            'Metrics are percent on the validation set: the mean over the seeds ± the sample standard deviation.'
        )
    return ' '.join(sentences)


def as_json(rows: Sequence[Row], about: About) -> dict[str, Any]:
    """The content of benchmark.json."""
    return dict(**vars(about), rows=[row.record() for row in rows])


def as_csv(rows: Sequence[Row]) -> str:
    """The content of benchmark.csv: one line for each backbone, data set and task."""
    lines = [_flat(row.record()) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for line in lines for key in line)), lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _flat(node: Mapping[str, Any], path: str = '') -> dict[str, Any]:
    """Nested keys joined by dots; lists joined by a space or, for texts, a semicolon."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f'{path}.{key}' if path else str(key)
        if isinstance(value, Mapping):
            flat.update(_flat(value, name))
        elif isinstance(value, list):
            flat[name] = ('; ' if key == 'failures' else ' ').join(map(str, value))
        else:
            flat[name] = value
    return flat


def as_markdown(rows: Sequence[Row], about: About) -> str:
    """The content of benchmark.md."""
    parts = ['# Benchmark of backbones', f'```bash\n{about.command}\n```', legend(about)]
    for (data, task), some in groups(rows).items():
        header, cells = table(some)
        parts += [f'## {group_title(data, task)}', conditions(some), markdown_table(header, cells).rstrip()]
    failed = failures(rows)
    if failed:
        parts += ['## Failed', '\n'.join(f'- {_escaped(line)}' for line in failed)]
    versions = ', '.join(f'{name} {version}' for name, version in about.versions.items())
    parts += ['## Measured with', f'{about.date}, {about.machine}, device {about.options["device"]}.', f'{versions}.']
    return '\n\n'.join(parts) + '\n'


def _escaped(cell: str) -> str:
    return cell.replace('|', r'\|')
