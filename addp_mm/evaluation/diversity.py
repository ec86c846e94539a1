# Copyright (c) addp_mm contributors. Apache-2.0.
"""How different the images of one question are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def mean_pairwise_distance(features: Tensor, groups: Sequence[Any]) -> float:
    """Mean Euclidean distance of two images of one group, averaged over the groups.

    It is 0 if a generator makes one image only of each class.

    Args:
        features: (N, D).
        groups: Group of each image, such as its class. A group of one image does not count.

    Returns:
        The mean; NaN if no group has two images.
    """
    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    means = [torch.pdist(features[rows].double()).mean() for rows in members.values() if len(rows) > 1]
    return float(torch.stack(means).mean()) if means else float('nan')
