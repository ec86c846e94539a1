# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images and matplotlib figures as pictures of a page, with their data inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from addp_mm.report.palette import SOFT

Points = Sequence[tuple[float, float]]
_CHART_INCHES = (3.6, 2.7)
_CHARTS_IN_A_ROW = 3
_NAMES_BELOW_A_CHART = 2
_FEW_POINTS = 10  # these are marked
_SMALL_PHOTO = 200**2  # pixels
_PHOTO_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Args:
        uri: Its data, as a ``data:`` address.
        width: In pixels.
        height: In pixels.
        max_width: Largest width on the page, in pixels.
        alt: Describes the picture to a reader who cannot see it.
        title: Text above it. Defaults to '': none.
    """

    uri: str
    width: int
    height: int
    max_width: int
    alt: str
    title: str = ''

    @property
    def content(self) -> bytes:
        """What a file of this picture contains."""
        return base64.b64decode(self.uri.partition(',')[2])

    @property
    def is_wide(self) -> bool:
        """Whether you have to scroll it on a narrow screen."""
        return self.width > 2 * self.height


def image_picture(image: Image.Image, alt: str, title: str = '') -> Picture:
    """An image as a picture, in PNG."""
    buffer = io.BytesIO()
    image.convert('RGB').save(buffer, 'png', optimize=True)
    return Picture(_uri('image/png', buffer.getvalue()), image.width, image.height, 2 * image.width, alt, title)


def photo_picture(image: Image.Image, alt: str) -> Picture:
    """An image as a picture, in PNG if it is small, otherwise in JPEG."""
    if image.width * image.height <= _SMALL_PHOTO:
        return image_picture(image, alt)
    buffer = io.BytesIO()
    image.convert('RGB').save(buffer, 'jpeg', quality=_PHOTO_QUALITY)
    return Picture(_uri('image/jpeg', buffer.getvalue()), image.width, image.height, image.width, alt)


def figure_picture(figure: MatplotlibFigure, alt: str) -> Picture:
    """A matplotlib figure as a picture, in SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg', metadata=dict(Date=None))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(_uri('image/svg+xml', buffer.getvalue()), width, height, width, alt)


def line_charts(charts: Mapping[str, Mapping[str, Points]], x_label: str, colours: Mapping[str, str]) -> Picture:
    """Draw line charts side by side.

    Args:
        charts: Points (x, y) by name of the line, by title of the chart.
        x_label: Name of the horizontal axis.
        colours: Colour by name of the line. A legend is drawn if there are several lines.

    Raises:
        ValueError: A line has no points.
    """
    columns = min(_CHARTS_IN_A_ROW, len(charts))
    rows = -(-len(charts) // columns)
    names_in_a_row = min(len(colours), columns * _NAMES_BELOW_A_CHART)
    legend_inches = 0.2 * -(-len(colours) // names_in_a_row) + 0.15 if len(colours) > 1 else 0.0
    figure = MatplotlibFigure(
        (columns * _CHART_INCHES[0], rows * _CHART_INCHES[1] + legend_inches), layout='constrained'
    )
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, (title, lines) in zip(axes, charts.items(), strict=False):
        _draw_lines(ax, title, lines, colours)
        ax.set_xlabel(x_label, fontsize=8, color=SOFT)
    for ax in axes[len(charts) :]:
        ax.set_visible(False)
    if len(colours) > 1:
        handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        figure.legend(
            handles=list(handles.values()), loc='outside lower left', ncols=names_in_a_row, fontsize=9, frameon=False
        )
    return figure_picture(figure, f'line charts: {", ".join(charts)}')


def _draw_lines(ax: Any, title: str, lines: Mapping[str, Points], colours: Mapping[str, str]) -> None:
    for name, points in lines.items():
        if not points:
            raise ValueError(f'chart {title!r}: line {name!r} has no points')
        marker = 'o' if len(points) <= _FEW_POINTS else None
        ax.plot(*zip(*points, strict=True), color=colours[name], label=name, linewidth=1.6, marker=marker, ms=3)
    ax.set_title(title, fontsize=10, loc='left', fontweight='bold')
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.tick_params(labelsize=8, colors=SOFT, length=0)
    ax.grid(axis='y', color='#dedad0', linewidth=0.7)
    ax.spines[:].set_visible(False)


def _uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
