# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of reconstructions to their images, and of generated images to a reference.

torchmetrics' ``FrechetInceptionDistance`` agrees to 1e-5 where both apply (a test compares them).
This class is needed because that class does not save the statistics of a reference or compare the
fingerprint of their extractor, and it counts the images that a distributed sampler repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.evaluation.batches import stacked, to_bytes
from addp_mm.evaluation.feature_extractors import FeatureExtractor, build_extractor
from addp_mm.evaluation.feature_statistics import FeatureStatistics, frechet_distance, require_same_extractor
from addp_mm.registry import METRICS

_BATCH = 1024


class _FrechetMetric(BaseMetric):
    """Base class: keeps the features of one or more images of each prediction, on the CPU.

    mmengine gathers the features of all processes and leaves out the images that a sampler repeats.
    """

    images: tuple[str, ...]

    def __init__(
        self, extractor: dict | FeatureExtractor | None = None, collect_device: str = 'cpu', prefix: str | None = None
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

    def _statistics(self, results: list[Tensor]) -> list[FeatureStatistics]:
        """Statistics of the features of all processes, for each of the images."""
        found = [FeatureStatistics(self.extractor.name, self.extractor.fingerprint) for _ in self.images]
        for start in range(0, len(results), _BATCH):
            batch = torch.stack(results[start : start + _BATCH], 1)
            for statistics, features in zip(found, batch, strict=True):
                statistics.update(features)
        return found


@METRICS.register_module()
class ReconstructionFID(_FrechetMetric):
    """Fréchet distance between images and their reconstructions: rFID with Inception's features.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction. Both are
    rounded to 8 bits. The key is ``rfid`` for Inception with FID's weights and ``rfid[NAME]`` for
    every other extractor.

    Args:
        extractor: Config of :class:`InceptionFeatures` or :class:`BackboneFeatures`, or the module.
            Defaults to None: Inception with FID's weights.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.
    """

    default_prefix = 'reconstruction'
    images = ('image', 'reconstruction')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the distance from the statistics of all processes."""
        originals, reconstructions = self._statistics(results)
        return {self.extractor.key('rfid'): frechet_distance(originals, reconstructions)}


@METRICS.register_module()
class FrechetDistance(_FrechetMetric):
    """Fréchet distance between generated images and a reference: FID with Inception's features.

    Reads ``image``, (C, H, W) in [0, 1], of each prediction, rounded to 8 bits. The key is ``fid``
    for Inception with FID's weights and ``fid[NAME]`` for every other extractor.

    Args:
        reference: Statistics of the reference, a .npz file that
            tools/analysis_tools/frechet_distance.py writes from a folder of images.
        extractor: Config of :class:`InceptionFeatures` or :class:`BackboneFeatures`, or the module.
            Defaults to None: Inception with FID's weights.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.

    Raises:
        StatisticsError: The reference cannot be read, or was made with another extractor.
    """

    default_prefix = 'generation'
    images = ('image',)

    def __init__(
        self,
        reference: str,
        extractor: dict | FeatureExtractor | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(extractor, collect_device, prefix)
        self.reference = FeatureStatistics.load(reference)
        (own,) = self._statistics([])
        require_same_extractor(own, self.reference, f'{reference}: statistics of the images and of the file')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the distance from the statistics of all processes."""
        (generated,) = self._statistics(results)
        return {self.extractor.key('fid'): frechet_distance(generated, self.reference)}
