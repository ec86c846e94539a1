# Copyright (c) addp_mm contributors. Apache-2.0.
"""Grow labelled regions of a map, all pixels of a front at once."""

from collections.abc import Callable

import numpy as np


class LabelMap:
    """Labels of pixels, with a border of one pixel that belongs to no region.

    Args:
        labels: (H, W) integers. Pixels without a label have 0 or less.
    """

    def __init__(self, labels: np.ndarray):
        self.shape = labels.shape
        self.flat = self.padded(labels)

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Flatten a map (H, W), with a border of zeros: ((H + 2) * (W + 2),)."""
        return np.pad(values, 1).ravel()

    def without_border(self, positions: np.ndarray) -> np.ndarray:
        """Flat positions in a map without a border."""
        rows, columns = np.divmod(positions, self.shape[1] + 2)
        return (rows - 1) * self.shape[1] + columns - 1

    def values(self) -> np.ndarray:
        """The labels (H, W)."""
        height, width = self.shape
        return self.flat.reshape(height + 2, width + 2)[1:-1, 1:-1]

    def grow(
        self,
        front: np.ndarray,
        allowed: np.ndarray,
        columns_first: bool,
        accepts: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Give labels to neighbours of labelled pixels, then to theirs, until none is left.

        A pixel gets the label of the first pixel that reaches it, as in a queue of pixels. The four
        neighbours of a pixel are asked in a fixed order.

        Args:
            front: (F,) int64 flat positions to start from, in the order of the queue.
            allowed: Flat map of bool: pixels that may get a label.
            columns_first: Whether left and right neighbours are asked before upper and lower ones.
            accepts: Called with flat positions and the labels offered; returns a mask. Defaults to
                None, which accepts all.
        """
        row = self.shape[1] + 2
        steps = np.array([-1, 1, -row, row] if columns_first else [-row, row, -1, 1])
        winner = np.empty(len(self.flat), dtype=np.int64)
        while len(front):
            targets, offers = (front[:, None] + steps).ravel(), self.flat[front].repeat(4)
            asked = np.flatnonzero(allowed[targets] & (self.flat[targets] <= 0))
            if accepts is not None:
                asked = asked[accepts(targets[asked], offers[asked])]
            wanted = targets[asked]
            winner[wanted] = len(targets)
            np.minimum.at(winner, wanted, asked)  # of several offers to a pixel the first one wins
            won = asked[winner[wanted] == asked]
            self.flat[targets[won]] = offers[won]
            front = targets[won]
