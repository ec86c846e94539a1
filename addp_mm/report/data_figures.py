# Copyright (c) addp_mm contributors. Apache-2.0.
"""Charts of a dataset: counts by class, histograms, image sizes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from addp_mm.report.figures import Picture, figure_picture
from addp_mm.report.palette import COLOURS, SOFT

_RULE = '#dedad0'
_INCHES, _WIDTH = (3.5, 2.6), 8.8
_MAX_CLASSES = 60
_LONG = 24  # letters of a name


def class_bars(classes: Sequence[str], counts: Mapping[str, Sequence[int]], unit: str) -> Picture:
    """Draw the share of each class in each split as horizontal bars, the most frequent class first.

    Args:
        classes: Names of the classes.
        counts: Counts of the classes by split.
        unit: What is counted, for the axis.
    """
    shares = {split: np.asarray(some) / max(sum(some), 1) for split, some in counts.items()}
    order = np.argsort(-next(iter(shares.values())), kind='stable')
    shown = np.concatenate([order[: _MAX_CLASSES // 2], order[-_MAX_CLASSES // 2 :]])
    shown = order if len(order) <= _MAX_CLASSES else shown
    height = 0.75 + 0.12 * len(shown) * (0.6 + len(shares))
    figure = MatplotlibFigure((_WIDTH, height), layout='constrained')
    ax = figure.subplots()
    bar = 0.8 / len(shares)
    for number, (split, values) in enumerate(shares.items()):
        places = np.arange(len(shown)) + (number - (len(shares) - 1) / 2) * bar
        ax.barh(places, 100 * values[shown], bar, color=_colour(split, number), label=split)
    ax.set_yticks(np.arange(len(shown)), [short_name(classes[index]) for index in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel(f'% of the {unit}', fontsize=8, color=SOFT)
    plain_axes(ax, 'x')
    if len(shares) > 1:
        ax.legend(frameon=False, fontsize=9, loc='lower right')
    return svg_picture(figure, f'{unit} by class')


def histogram(title: str, summaries: Mapping[str, Any], x_label: str, logarithmic: bool = False) -> Picture:
    """Draw histograms of several splits, as shares.

    Args:
        title: Title of the chart.
        summaries: A :class:`addp_mm.analysis.distribution.Distribution` by split.
        x_label: Name of the horizontal axis.
        logarithmic: Whether the horizontal axis is logarithmic. Defaults to False.
    """
    figure = MatplotlibFigure(_INCHES, layout='constrained')
    ax = figure.subplots()
    for number, (split, summary) in enumerate(summaries.items()):
        heights = 100 * np.asarray(summary.heights) / max(sum(summary.heights), 1)
        colour = _colour(split, number)
        ax.stairs(heights, summary.edges, color=colour, label=split, linewidth=1.6, fill=False)
        ax.stairs(heights, summary.edges, color=colour, alpha=0.15, fill=True)
    if logarithmic:
        ax.set_xscale('log')
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        ax.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_title(title, fontsize=10, loc='left', fontweight='bold')
    ax.set_xlabel(x_label, fontsize=8, color=SOFT)
    ax.set_ylabel('%', fontsize=8, color=SOFT)
    ax.set_ylim(0)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    plain_axes(ax, 'y')
    if len(summaries) > 1:
        ax.legend(frameon=False, fontsize=8)
    return svg_picture(figure, f'histogram: {title}')


def size_scatter(sizes: Mapping[str, Sequence[tuple[int, int, int]]]) -> Picture:
    """Draw width and height of the images; the area of a circle is the number of its images.

    Args:
        sizes: Width, height and number of images of the most common sizes, by split.
    """
    figure = MatplotlibFigure(_INCHES, layout='constrained')
    ax = figure.subplots()
    for number, (split, some) in enumerate(sizes.items()):
        width, height, count = np.array(some).reshape(-1, 3).T
        colour = _colour(split, number)
        area = 12 + 200 * count / count.sum()
        ax.scatter(width, height, area, color=colour, alpha=0.5, label=split, edgecolor='none')
    ax.set_title('Image sizes', fontsize=10, loc='left', fontweight='bold')
    ax.set_xlabel('width, px', fontsize=8, color=SOFT)
    ax.set_ylabel('height, px', fontsize=8, color=SOFT)
    ax.margins(0.15)
    plain_axes(ax, 'both')
    if len(sizes) > 1:
        ax.legend(frameon=False, fontsize=8)
    return svg_picture(figure, 'widths and heights of the images')


def _colour(split: str, number: int) -> str:
    """The first colour is that of the training."""
    return COLOURS[0] if split == 'train' else COLOURS[1 + (number - 1) % (len(COLOURS) - 1)]


def svg_picture(figure: MatplotlibFigure, alt: str) -> Picture:
    """A matplotlib figure as a picture whose text stays text."""
    # Text stays text, so that the browser finds a font for every script.
    with rc_context({'svg.fonttype': 'none'}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*[Gg]lyph')
        return figure_picture(figure, alt)


def plain_axes(ax: Any, grid: str) -> None:
    """Give axes thin lines and grey numbers.

    Args:
        ax: The axes.
        grid: Direction of the lines, 'x', 'y' or 'both'.
    """
    ax.tick_params(labelsize=8, colors=SOFT, length=0)
    ax.grid(axis=grid, color=_RULE, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)


def short_name(name: str) -> str:
    """A name as matplotlib shows it, with at most 24 letters."""
    short = name if len(name) <= _LONG else name[: _LONG - 1] + '…'
    return short.replace('$', r'\$')  # matplotlib reads $…$ as a formula
