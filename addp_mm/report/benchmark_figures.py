# Copyright (c) addp_mm contributors. Apache-2.0.
"""Charts of a benchmark: a metric against speed or size, and bars of speed, with error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure as MatplotlibFigure

from addp_mm.report.data_figures import plain_axes, short_name, svg_picture
from addp_mm.report.figures import Picture
from addp_mm.report.palette import COLOURS, SOFT

_MARKERS = 'os^Dv'
_INCHES, _WIDTH = (6.4, 3.6), 8.8


@dataclass(frozen=True)
class Interval:
    """A value with its error bar.

    Args:
        value: The value.
        low: Lower end of the error bar. Defaults to None: there is no error bar.
        high: Upper end of the error bar. Defaults to None.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def arms(self) -> tuple[list[float], list[float]] | None:
        """Lengths of the error bar below and above, as matplotlib takes them; None: no bar."""
        if self.low is None or self.high is None:
            return None
        return [self.value - self.low], [self.high - self.value]

    def scaled(self, factor: float) -> Interval:
        """The interval in another unit: all its numbers times a positive factor."""
        low, high = (None if limit is None else factor * limit for limit in (self.low, self.high))
        return Interval(factor * self.value, low, high)


def error_scatter(title: str, points: Mapping[str, tuple[Interval, Interval]], x_label: str, y_label: str) -> Picture:
    """Draw named points with error bars in both directions.

    Args:
        title: Title of the chart.
        points: x and y by name.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
    """
    figure = MatplotlibFigure(_INCHES, layout='constrained')
    ax = figure.subplots()
    for number, (name, (x, y)) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        ax.errorbar(
            [x.value],
            [y.value],
            xerr=x.arms,
            yerr=y.arms,
            fmt=_MARKERS[number // len(COLOURS) % len(_MARKERS)],
            color=colour,
            capsize=3,
            elinewidth=1.2,
            ms=5,
            label=short_name(name),
        )
    return _scatter(figure, ax, title, x_label, y_label, margins=0.2)


def run_scatter(title: str, points: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Picture:
    """Draw the runs of each name as small points, and their mean as a large one with a dark edge.

    Args:
        title: Title of the chart.
        points: (x, y) of each run, by name.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
    """
    figure = MatplotlibFigure(_INCHES, layout='constrained')
    ax = figure.subplots()
    for number, (name, runs) in enumerate(points.items()):
        style: Any = dict(color=COLOURS[number % len(COLOURS)], marker=_MARKERS[number // len(COLOURS) % len(_MARKERS)])
        x, y = zip(*runs, strict=True)
        ax.scatter(x, y, 14, alpha=0.5, edgecolor='none', **style)
        ax.scatter([fmean(x)], [fmean(y)], 60, edgecolor='#333333', linewidth=0.8, label=short_name(name), **style)
    return _scatter(figure, ax, title, x_label, y_label, margins=0.1)


def _scatter(figure: MatplotlibFigure, ax: Any, title: str, x_label: str, y_label: str, margins: float) -> Picture:
    """Finish a chart of points: title, axes, and a legend beside it."""
    ax.set_title(title, fontsize=10, loc='left', fontweight='bold')
    ax.set_xlabel(x_label, fontsize=8, color=SOFT)
    ax.set_ylabel(y_label, fontsize=8, color=SOFT)
    ax.margins(margins)
    plain_axes(ax, 'both')
    # names beside the points would overlap where points are alike
    figure.legend(loc='outside right upper', frameon=False, fontsize=8)
    return svg_picture(figure, f'{y_label} against {x_label}: {title}')


def error_bars(
    title: str, bars: Mapping[str, Sequence[Interval | None]], series: Sequence[str], x_label: str
) -> Picture:
    """Draw horizontal bars with error bars.

    Args:
        title: Title of the chart.
        bars: For each name, a value of each series, or None where there is none.
        series: Names of the series.
        x_label: Name of the horizontal axis.
    """
    figure = MatplotlibFigure((_WIDTH, 1.0 + 0.26 * len(bars) * (0.5 + len(series))), layout='constrained')
    ax = figure.subplots()
    height = 0.8 / len(series)
    for number, name in enumerate(series):
        colour, labelled = COLOURS[number % len(COLOURS)], False
        for place, values in enumerate(bars.values()):
            bar: Any = values[number]
            if bar is not None:
                y = place + (number - (len(series) - 1) / 2) * height
                label = None if labelled else name
                ax.barh(y, bar.value, height, xerr=bar.arms, color=colour, label=label, capsize=2, ecolor='#333333')
                labelled = True
    ax.set_yticks(range(len(bars)), [short_name(name) for name in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_title(title, fontsize=10, loc='left', fontweight='bold')
    ax.set_xlabel(x_label, fontsize=8, color=SOFT)
    plain_axes(ax, 'x')
    if len(series) > 1:
        ax.legend(frameon=False, fontsize=8)
    return svg_picture(figure, f'{x_label}: {title}')
