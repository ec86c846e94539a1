# Copyright (c) addp_mm contributors. Apache-2.0.
"""Charts of values that grow with a size, on logarithmic axes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from addp_mm.report.data_figures import plain_axes, svg_picture
from addp_mm.report.figures import Picture, Points
from addp_mm.report.palette import COLOURS, SOFT

_CHART_INCHES = (4.2, 3.4)
_COLUMNS, _COLUMNS_OF_A_LEGEND = 2, 2
_TITLE_LETTERS = 48


def growth_charts(charts: Mapping[str, tuple[str, str, Mapping[str, Points]]]) -> Picture:
    """Draw values against sizes. A thin line in each chart rises linearly.

    Args:
        charts: By title: names of the horizontal and the vertical axis, and points (x, y) by name
            of the line. Points that are not positive are left out.
    """
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    figure = MatplotlibFigure((columns * _CHART_INCHES[0], rows * _CHART_INCHES[1]), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (title, (x_label, y_label, lines)) in zip(axes, charts.items(), strict=False):
        ax.set(xscale='log', yscale='log')
        seen: list[tuple[float, float]] = []
        for number, (name, points) in enumerate(lines.items()):
            shown = [(x, y) for x, y in points if x > 0 and y > 0]
            if shown:
                colour = COLOURS[number % len(COLOURS)]
                ax.plot(*zip(*shown, strict=True), color=colour, label=name, linewidth=1.6, marker='o', ms=3)
                seen += shown
        if seen:
            (left, right), low = (end(x for x, _ in seen) for end in (min, max)), min(y for _, y in seen)
            linear = [low, low * right / left]
            ax.plot([left, right], linear, color=SOFT, linewidth=0.8, linestyle=':', label='linear')
            ax.xaxis.set_major_locator(FixedLocator(sorted({x for x, _ in seen})))
            names = dict(ncols=_COLUMNS_OF_A_LEGEND, frameon=False, fontsize=7)
            ax.legend(loc='upper left', bbox_to_anchor=(0, -0.16), **names)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(StrMethodFormatter('{x:g}'))
        ax.set_title(textwrap.fill(title, _TITLE_LETTERS), fontsize=9, loc='left', fontweight='bold')
        ax.set_xlabel(x_label, fontsize=8, color=SOFT)
        ax.set_ylabel(y_label, fontsize=8, color=SOFT)
        plain_axes(ax, 'y')
    for ax in axes[len(charts) :]:
        ax.set_visible(False)
    return svg_picture(figure, f'growth: {", ".join(charts)}')
