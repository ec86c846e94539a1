# Copyright (c) addp_mm contributors. Apache-2.0.
"""Order of the positions of a token map along a Halton sequence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def halton_order(height: int, width: int) -> Tensor:
    """Order in which the points of the 2-D Halton sequence reach the cells of a grid.

    Neighbours in the order are far apart on the grid, so that tokens that are drawn in one step
    depend little on each other. Source: Halton-MaskGIT, ICLR 2025, arXiv 2503.17076. As there,
    base 2 gives the row and base 3 the column, and the sequence starts after the origin.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        Positions in row-major order of the grid, each once, (height * width,) int64.

    Example:
        >>> halton_order(2, 3).tolist()
        [4, 2, 3, 1, 5, 0]
    """
    from scipy.stats.qmc import Halton  # here, because it takes a second

    # 2**a * 3**b successive points have one in each of 2**a x 3**b boxes. Boxes of at most half a
    # cell: every cell contains one.
    points = 2 ** _digits(2 * height, 2) * 3 ** _digits(2 * width, 3)
    sequence = Halton(d=2, scramble=False).fast_forward(1).random(points)
    # a point on the edge of a cell, rounded down, would be in the cell before
    rows, columns = (sequence * (height, width) + 1e-9).astype(np.int64).T
    _, first = np.unique(rows * width + columns, return_index=True)
    return torch.from_numpy(np.argsort(first))


def _digits(number: int, base: int) -> int:
    """The smallest k with ``base**k >= number``."""
    count = 0
    while base**count < number:
        count += 1
    return count
