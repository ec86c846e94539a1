# Copyright (c) addp_mm contributors. Apache-2.0.
"""Charts of a value against the number of GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure as MatplotlibFigure

from addp_mm.report.data_figures import plain_axes, svg_picture
from addp_mm.report.figures import Picture, Points
from addp_mm.report.palette import COLOURS, SOFT

_MARKERS = 'os^Dv*'
_INCHES = (4.4, 2.5)


def scaling_charts(charts: Mapping[str, Mapping[str, Points]], columns: int, y_label: str) -> Picture:
    """Draw charts whose horizontal axis doubles from step to step.

    Args:
        charts: Points (number of GPUs, value) by name of the line, by title of the chart.
        columns: Charts in a row.
        y_label: Name of the vertical axis, which starts at 0.
    """
    rows = -(-len(charts) // columns)
    figure = MatplotlibFigure((columns * _INCHES[0], rows * _INCHES[1] + 0.4), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (title, lines) in zip(axes, charts.items(), strict=False):
        for number, (name, points) in enumerate(lines.items()):
            colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
            ax.plot(*zip(*points, strict=True), color=colour, marker=marker, ms=4, linewidth=1.4, label=name)
        numbers = sorted({x for points in lines.values() for x, _ in points})
        ax.set_xscale('log', base=2)
        ax.set_xticks(numbers, [f'{number:g}' for number in numbers])
        ax.set_ylim(bottom=0)
        ax.set_title(title, fontsize=9, loc='left', fontweight='bold')
        ax.set_xlabel('GPUs', fontsize=8, color=SOFT)
        ax.set_ylabel(y_label, fontsize=8, color=SOFT)
        plain_axes(ax, 'both')
    for ax in axes[len(charts) :]:
        ax.set_visible(False)
    handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    figure.legend(handles=list(handles.values()), loc='outside lower left', ncols=3, fontsize=8, frameon=False)
    return svg_picture(figure, f'{y_label} by number of GPUs: {", ".join(charts)}')
