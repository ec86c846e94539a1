# Copyright (c) addp_mm contributors. Apache-2.0.
"""The label map of one image: the best classes of a classifier at each position of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from addp_mm.datasets.errors import BrokenSampleError, DatasetError

PROBABILITY, LOGIT = 'probability', 'logit'


class LabelMapError(DatasetError):
    """Label maps that are missing or damaged, or that belong to other images or classes."""


class BrokenLabelMapError(LabelMapError, BrokenSampleError):
    """The label map of one image is missing or damaged."""


@dataclass(frozen=True)
class LabelMap:
    """The best classes of an image at each position of a grid over the whole image.

    Args:
        scores: Scores of the best classes, float32 (K, h, w).
        classes: Their numbers, int64 (K, h, w); different ones at each position.
        kind: 'probability': softmax over all classes; the classes that are left out share the
            rest equally. 'logit': the classes that are left out have 0, as in LV-ViT's maps.
    """

    scores: Tensor
    classes: Tensor
    kind: str = PROBABILITY

    def check(self, num_classes: int, source: str) -> LabelMap:
        """Check the values.

        Args:
            num_classes: Number of all classes.
            source: The file, for the error.

        Returns:
            The map itself.

        Raises:
            BrokenLabelMapError: A class does not exist, a score is not finite, or the probabilities
                of a position have a sum above 1.
        """
        low, high = int(self.classes.min()), int(self.classes.max())
        if low < 0 or high >= num_classes:
            raise BrokenLabelMapError(
                f'{source}: the label map has class {low if low < 0 else high}, but there are {num_classes} classes. '
                'The map is damaged, or belongs to other classes.'
            )
        if not torch.isfinite(self.scores).all():
            raise BrokenLabelMapError(f'{source}: the label map has a score that is not finite. Write the map again.')
        # half precision rounds each of the K scores by up to 2e-4
        if self.kind == PROBABILITY and (self.scores.min() < 0 or self.scores.sum(0).max() > 1.002):
            raise BrokenLabelMapError(
                f'{source}: the scores of the label map are not probabilities. The map is damaged; write it again.'
            )
        return self
