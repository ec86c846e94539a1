# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures of images whose tokens were drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from torch import Tensor

from addp_mm.alignment.figures import CHOSEN, REJECTED, framed, heat_map
from addp_mm.alignment.intervals import share_with_interval
from addp_mm.alignment.redraw_experiment import CHOICES, Case
from addp_mm.alignment.token_scores import score_ranks
from addp_mm.generation.figures import enlarge, image_grid
from addp_mm.report.benchmark_figures import Interval, error_bars
from addp_mm.report.figures import Picture

_SIDE, _FRAME = 96, 3


def case_name(share: float | None) -> str:
    """Name of what was drawn again."""
    if share is None:
        return 'from one token on'
    return f'{Fraction(share).limit_denominator(1000)} of the tokens'


def right_bars(cases: Sequence[Case]) -> Picture:
    """Bars: share of the wrong images that became right, with 95 % confidence intervals.

    Args:
        cases: For each share, all choices.
    """
    bars: dict[str, list[Interval | None]] = {}
    for case in cases:
        values = bars.setdefault(case_name(case.share), [None] * len(CHOICES))
        values[CHOICES.index(case.choice)] = share_with_interval(case.right.mean(1)).scaled(100)
    return error_bars('Tokens drawn again', bars, CHOICES, 'wrong images that become right, %')


def redraw_grid(
    wrong: Sequence[np.ndarray],
    scores: Tensor,
    generated: Tensor,
    grid_size: tuple[int, int],
    cases: Mapping[str, Case],
) -> np.ndarray:
    """A row for each image: the wrong image, its heat map, and new images.

    The lower the rank of a token's score in its image, the redder it is: scores themselves are
    often all near 0. New images are in a blue frame if they are right, otherwise in a red one.

    Args:
        wrong: The first images, uint8 (H, W, 3).
        scores: Of their tokens, (N, L).
        generated: Tokens that have a score, (N, L) bool.
        grid_size: (h, w) in tokens.
        cases: The new images, by choice; those of the first draw.

    Returns:
        uint8 (height, width, 3).
    """
    weights = (1 - score_ranks(scores, generated)).masked_fill(~generated, 0)
    tiles = []
    for row, image in enumerate(wrong):
        heat = heat_map(image, weights[row], grid_size, _SIDE)
        shown = [(image, False), (heat, False)]
        shown += [(case.shown[row], bool(case.right[row, 0])) for case in cases.values()]
        tiles += [framed(enlarge(one, _SIDE), CHOSEN if right else REJECTED, _FRAME) for one, right in shown]
    return image_grid(tiles, columns=2 + len(cases))
