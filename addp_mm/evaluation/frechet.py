# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of reconstructions to their images.

torchmetrics' ``FrechetInceptionDistance`` agrees to 1e-5 where both apply (a test compares them).
This class is needed because that class counts the images that a distributed sampler repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.evaluation.batches import stacked, to_bytes
from addp_mm.evaluation.feature_extractors import FeatureExtractor, build_extractor
from addp_mm.evaluation.feature_statistics import FeatureStatistics, frechet_distance
from addp_mm.registry import METRICS

_BATCH = 1024


@METRICS.register_module()
class ReconstructionFID(BaseMetric):
    """Fréchet distance between images and their reconstructions: rFID with Inception's features.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction. Both are
    rounded to 8 bits. The key is ``rfid`` for Inception with FID's weights and ``rfid[NAME]`` for
    every other extractor. The features of both images are kept on the CPU; mmengine gathers those
    of all processes and leaves out the images that a sampler repeats.

    Args:
        extractor: Config of :class:`InceptionFeatures` or :class:`BackboneFeatures`, the name of a
            shipped one, or the module. Defaults to None: Inception with FID's weights.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.
    """

    default_prefix = 'reconstruction'
    images = ('image', 'reconstruction')

    def __init__(
        self,
        extractor: dict | str | FeatureExtractor | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.extractor = build_extractor(extractor)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the features of the images of each prediction, (number of images, D)."""
        for batch in stacked(data_samples, *self.images):
            self.extractor.to(batch[0].device)
            features = torch.stack([self.extractor(to_bytes(images)) for images in batch], 1)
            # Cloned: a view would be gathered with the memory of the whole batch.
            self.results.extend(row.clone() for row in features.cpu())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the distance from the statistics of all processes."""
        originals, reconstructions = self._statistics(results)
        return {self.extractor.key('rfid'): frechet_distance(originals, reconstructions)}

    def _statistics(self, results: list[Tensor]) -> list[FeatureStatistics]:
        """Statistics of the features of all processes, for each of the images."""
        found = [FeatureStatistics(self.extractor.name, self.extractor.fingerprint) for _ in self.images]
        for start in range(0, len(results), _BATCH):
            batch = torch.stack(results[start : start + _BATCH], 1)
            for statistics, features in zip(found, batch, strict=True):
                statistics.update(features)
        return found
