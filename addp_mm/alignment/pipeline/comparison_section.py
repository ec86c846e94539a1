# Copyright (c) addp_mm contributors. Apache-2.0.
"""The comparison in the report of ``addp align``: tables and charts of ``comparison.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from addp_mm.alignment.pipeline.comparison import DISTANCE, DIVERSITY, REWARD
from addp_mm.alignment.pipeline.comparison_table import BETTER, ComparisonTable
from addp_mm.alignment.pipeline.holes import Holes
from addp_mm.report.benchmark_figures import Interval, error_bars, run_scatter
from addp_mm.report.figures import Picture
from addp_mm.report.page import Figure, Section, Table

_TITLES = {
    REWARD: 'Reward',
    BETTER: "Better than the base's image of the same noise, share",
    DISTANCE: 'Fréchet distance (lower is better)',
    DIVERSITY: 'Diversity: mean distance of two images of one question',
}


def summary_table(table: ComparisonTable) -> list[list[str]]:
    """Rows of text: the names of the numbers, then one row for each model."""
    keys = list(next(iter(table.values())))
    return [['', *keys], *([name, *(_number(row[key]) for key in keys)] for name, row in table.items())]


def difference_table(table: ComparisonTable) -> list[list[str]]:
    """Rows of text: the names of the numbers, then the differences of each model from the base."""
    keys, _, *others = list(next(iter(table.values()))), *table.items()
    return [['', *keys], *([name, *(_signed(row[key]) for key in keys)] for name, row in others)]


def comparison_section(table: ComparisonTable, num_images: int, command: str, holes: Holes | None = None) -> Section:
    """The section of the report.

    Args:
        table: See :data:`~addp_mm.alignment.pipeline.comparison_table.ComparisonTable`.
        num_images: Images of each model and seed.
        command: The command that made it.
        holes: Holes that were filled. Defaults to None: whole images were generated.
    """
    seeds = _num_seeds(table)
    arms = ' Error bars: standard deviation over the seeds.' if seeds > 1 else ''
    figures = [
        Figure('Each model, measured on its own images.', [command], table=_table(summary_table(table))),
        Figure(f'The same numbers.{arms}', [command], [*_value_charts(table).values()]),
    ]
    if changes := _difference_charts(table):
        interval = ', with the 95 % confidence interval of their mean over the seeds' if seeds > 1 else ''
        text = f'Differences from the base of the same seed{interval}.'
        figures += [
            Figure(text, [command], table=_table(difference_table(table))),
            Figure('The same differences.', [command], [*changes.values()]),
        ]
    if scatter := _scatter(table):
        text = 'The best place is at the lower right. Small points: seeds; large points: their means.'
        figures.append(Figure(text, [command], [*scatter.values()]))
    spread = f'; mean and standard deviation of {seeds} seeds' if seeds > 1 else '. One seed: no number has an interval'
    text = f'{num_images:,} images of each model, {_where(holes)}with noise that no training has seen{spread}. '
    return Section('Comparison', figures, f'{text}Positive is supervised fine-tuning on the right images.')


def _where(holes: Holes | None) -> str:
    if holes is None:
        return ''
    return 'in holes of the comparison alone, ' if holes.are_fresh else 'in the same holes as in the training, '


def comparison_pictures(table: ComparisonTable) -> dict[str, Picture]:
    """Charts by name: bars of each number, of its difference, and reward against Fréchet distance.

    Args:
        table: See :data:`~addp_mm.alignment.pipeline.comparison_table.ComparisonTable`.
    """
    changes = {f'{key}_difference': picture for key, picture in _difference_charts(table).items()}
    return _value_charts(table) | changes | _scatter(table)


def _value_charts(table: ComparisonTable) -> dict[str, Picture]:
    label = 'mean over the seeds' if _num_seeds(table) > 1 else 'one seed'
    return {
        key: error_bars(_title(key), {name: [_deviation(row[key])] for name, row in table.items()}, [''], label)
        for key in next(iter(table.values()))
    }


def _difference_charts(table: ComparisonTable) -> dict[str, Picture]:
    found = {}
    for key in next(iter(table.values())):
        differences = {name: row[key]['difference'] for name, row in table.items()}
        bars = {name: [Interval(**difference)] for name, difference in differences.items() if difference}
        if bars:
            found[key] = error_bars(_title(key), bars, [''], 'difference from the base')
    return found


def _scatter(table: ComparisonTable) -> dict[str, Picture]:
    if DISTANCE not in next(iter(table.values())):
        return {}
    points = {name: [*zip(row[REWARD]['values'], row[DISTANCE]['values'], strict=True)] for name, row in table.items()}
    title = 'Reward and Fréchet distance'
    return {f'{REWARD}_and_{DISTANCE}': run_scatter(title, points, _title(REWARD), 'Fréchet distance')}


def _num_seeds(table: ComparisonTable) -> int:
    return len(next(iter(table.values()))[REWARD]['values'])


def _title(key: str) -> str:
    return _TITLES.get(key, key.replace('_', ' ').capitalize())


def _table(rows: list[list[str]]) -> Table:
    (_, *keys), *others = rows
    return Table(['', *map(_title, keys)], others)


def _deviation(number: Mapping[str, Any]) -> Interval:
    mean, deviation = number['mean'], number['deviation']
    return Interval(mean) if deviation is None else Interval(mean, mean - deviation, mean + deviation)


def _number(number: Mapping[str, Any]) -> str:
    deviation = number['deviation']
    return f'{number["mean"]:.3f}' + ('' if deviation is None else f' ± {deviation:.3f}')


def _signed(number: Mapping[str, Any]) -> str:
    found = number['difference']
    if found is None:
        return '–'
    limits = '' if found['low'] is None else f' ({found["low"]:.3f} to {found["high"]:.3f})'
    return f'{found["value"]:+.3f}{limits}'
