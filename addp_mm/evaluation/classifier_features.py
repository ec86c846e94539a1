# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features and logits of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from addp_mm.evaluation.feature_extractors import BackboneFeatures
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.registry import METRICS


@METRICS.register_module()
class ClassifierFeatures(BackboneFeatures):
    """Features and logits of a classifier of mmpretrain, for an inception score in its classes.

    The features are those before the last layer of the head.

    Args:
        classifier: Config of a classifier with a head, such as ``mmpretrain.ImageClassifier``. Its
            ``init_cfg`` loads all weights. Its ``data_preprocessor`` is not used.
        name: See :class:`BackboneFeatures`.
        mean: See :class:`BackboneFeatures`. Defaults to ImageNet's.
        std: See :class:`BackboneFeatures`. Defaults to ImageNet's.
        input_size: See :class:`BackboneFeatures`. Defaults to None.

    Raises:
        ValueError: The classifier has no head, or another option is out of its range.
        CheckpointError: Not all weights of the classifier were loaded.
    """

    has_logits = True

    def __init__(
        self,
        classifier: dict,
        name: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = None,
    ) -> None:
        super().__init__(classifier, name, mean, std, input_size)
        if getattr(self.network, 'head', None) is None:
            raise ValueError(f'{name}: the classifier has no head. Use BackboneFeatures, which needs none')

    def forward(self, images: Tensor) -> Tensor:
        """Extract features (B, D) of images, uint8 (B, C, H, W)."""
        return self.with_logits(images)[0]

    @torch.no_grad()
    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features (B, D) and logits (B, K) of images, uint8 (B, C, H, W)."""
        features = self.network.extract_feat(self.prepared(images))
        return self.vectors(self.network.head.pre_logits(features)), self.network.head(features)
