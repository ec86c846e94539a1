# Copyright (c) addp_mm contributors. Apache-2.0.
"""Line charts as inline SVG; colours come from the page's style sheet by the class of a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 26, 34
Points = Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover ``low`` to ``high``, about ``count`` of them."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(lines: Mapping[str, Points], title: str, x_label: str) -> str:
    """An SVG element.

    Args:
        lines: Points (x, y) by the CSS class of the line ('addp', 'random').
        title: Stands above the chart, and is read to those who cannot see it.
        x_label: Name of the axis below.

    Raises:
        ValueError: If there is no point, or a value is not finite.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError(f'chart {title!r} has no points')
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError(f'chart {title!r} has values that are not finite')
    x_ticks = ticks(0, max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    x_high, y_low, y_high = max(x for x, _ in points), y_ticks[0], y_ticks[-1]
    x_ticks = [x for x in x_ticks if x <= x_high]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / (x_high or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{LEFT}" y="14">{escape(title)}</text>',
    ]
    decimals = max(len(f'{y:g}'.partition('.')[2]) for y in y_ticks)
    for y in y_ticks:
        _, down = place(0, y)
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{down + 3.5}" text-anchor="end">{y:.{decimals}f}</text>'
        )
    for x in x_ticks:
        across, _ = place(x, y_low)
        parts.append(f'<text class="tick" x="{across}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    for name, line in lines.items():
        path = ' '.join('{:g},{:g}'.format(*place(x, y)) for x, y in line)
        parts.append(f'<polyline class="line {escape(name)}" points="{path}"/>')
        across, down = place(*line[-1])
        parts.append(
            f'<circle class="end {escape(name)}" cx="{across:g}" cy="{down:g}" r="3.2">'
            f'<title>{line[-1][1]:.4g} at {line[-1][0]:g}</title></circle>'
        )
    return ''.join([*parts, '</svg>'])
