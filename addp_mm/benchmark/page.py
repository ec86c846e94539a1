# Copyright (c) addp_mm contributors. Apache-2.0.
"""The results as a page with charts."""

from __future__ import annotations

from collections.abc import Sequence

from addp_mm.benchmark.results import MODES, Row, Score, Speed
from addp_mm.benchmark.tables import About, conditions, failures, group_title, groups, legend, table
from addp_mm.report.benchmark_figures import Interval, error_bars, error_scatter
from addp_mm.report.figures import Picture
from addp_mm.report.page import Figure, Page, Section, Table

_LEAD = (
    'Each backbone is under the same head, with the same data and length of training. A swap also sets the optimizer '
    'that is usual for the backbone. Speed and memory are measured on synthetic images with random weights.'
)


def build_page(rows: Sequence[Row], about: About) -> Page:
    """Build the page: for each data set and task a table and charts."""
    sections = [_section(data, task, some, about) for (data, task), some in groups(rows).items()]
    failed = failures(rows)
    if failed:
        cells = Table(['', 'What failed'], [[str(number), line] for number, line in enumerate(failed, 1)])
        sections.append(Section('Failed', [Figure('The logs are in logs/.', [about.command], table=cells)]))
    sections.append(_machine(about))
    warning = f'{len(failed)} measurement(s) failed: see the end of the page.' if failed else ''
    return Page('Benchmark of backbones', _LEAD, sections, warning)


def _section(data: str, task: str, rows: Sequence[Row], about: About) -> Section:
    header, cells = table(rows)
    figures = [Figure(f'{conditions(rows)} {legend(about)}', [about.command], table=Table(header, cells))]
    figures += [Figure(caption, [about.command], pictures) for caption, pictures in _charts(rows) if pictures]
    return Section(group_title(data, task), figures)


def _charts(rows: Sequence[Row]) -> list[tuple[str, list[Picture]]]:
    charts = []
    for title in dict.fromkeys(title for row in rows for title in row.scores):
        scored = [row for row in rows if title in row.scores]
        charts.append((_scatter_caption(title, any(row.speed for row in scored)), _scatters(title, scored)))
    bars = {row.contestant.title: [_speed(row.speed.get(mode)) for mode in MODES] for row in rows if row.speed}
    if bars:
        picture = error_bars('Speed', bars, MODES, 'images/s')
        charts.append(('Median speed. Error bars: the quartiles.', [picture]))
    return charts


def _scatter_caption(title: str, timed: bool) -> str:
    text = f'{title} against {"speed and size" if timed else "size"}. Vertical bars: one standard deviation over the '
    text += 'seeds, above and below the mean; no bar with one seed.'
    return text + (' Horizontal bars: the quartiles of the speed.' if timed else '')


def _scatters(title: str, rows: Sequence[Row]) -> list[Picture]:
    pictures = []
    fast = {
        row.contestant.title: (_interval(row.speed['inference']), _score(row.scores[title]))
        for row in rows
        if 'inference' in row.speed
    }
    if fast:
        pictures.append(error_scatter(f'{title} and speed', fast, 'inference, images/s', f'{title}, %'))
    sized = {}
    for row in rows:
        if 'backbone' in row.parameters:
            millions = row.parameters['backbone'] / 1e6
            sized[row.contestant.title] = (Interval(millions, millions, millions), _score(row.scores[title]))
    if sized:
        x_label = 'parameters of the backbone, M'
        pictures.append(error_scatter(f'{title} and size', sized, x_label, f'{title}, %'))
    return pictures


def _score(score: Score) -> Interval:
    spread = score.spread or 0.0
    return Interval(score.mean, score.mean - spread, score.mean + spread)


def _interval(speed: Speed) -> Interval:
    return Interval(speed.median, speed.low, speed.high)


def _speed(speed: Speed | None) -> Interval | None:
    return None if speed is None else _interval(speed)


def _machine(about: About) -> Section:
    options = [[name, str(value)] for name, value in about.options.items()]
    return Section(
        'Measured with',
        [
            Figure('Options.', [about.command], table=Table(['Option', 'Value'], options)),
            Figure(
                'Versions.', ['python -m pip list'], table=Table(['Package', 'Version'], list(about.versions.items()))
            ),
        ],
        f'{about.date}, {about.machine}.',
    )
