# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of reconstructions to their images, and of generated images to a reference.

torchmetrics' ``FrechetInceptionDistance`` agrees to 1e-5 where both apply (a test compares them).
That class does not replace this one: it cannot save the statistics of a reference with the
fingerprint of their extractor, and it counts the images that a distributed sampler repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.evaluation.batches import stacked, to_bytes
from addp_mm.evaluation.feature_extractors import FeatureExtractor, build_extractor
from addp_mm.evaluation.feature_statistics import FeatureStatistics, frechet_distance, require_same_extractor
from addp_mm.registry import METRICS


class _Stream:
    """Statistics of the images of one process.

    The last image is added later, because the sampler may have repeated it.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
        self.last: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of images, including the last one."""
        return self.statistics.count + (self.last is not None)

    def add(self, features: Tensor) -> None:
        """Add features (B, D)."""
        if self.last is not None:
            features = torch.cat([self.last.to(features), features])
        self.statistics.update(features[:-1])
        self.last = features[-1:]

    def finish(self, share: int) -> FeatureStatistics:
        """Statistics of the first ``share`` images. There may be one more, which is left out."""
        if self.count > share + 1:
            raise ValueError(
                f'this process saw {self.count} images, but its share of the data set is {share}. The Fréchet distance '
                "counts each image once: set sampler=dict(type='DefaultSampler', shuffle=False)"
            )
        if self.last is not None and self.count <= share:
            self.statistics.update(self.last)
        return self.statistics.cpu()


class _FrechetMetric(BaseMetric):
    """Base class: statistics of the features of one or more images of each prediction, in one pass.

    Each process keeps its own statistics. They are merged in the order of ranks, without the images
    that a sampler repeats to give each process the same number.
    """

    images: tuple[str, ...]

    def __init__(self, extractor: dict | FeatureExtractor | None, collect_device: str, prefix: str | None) -> None:
        super().__init__(collect_device, prefix)
        self.extractor = build_extractor(extractor)
        self._reset()

    def _reset(self) -> None:
        self.streams = [_Stream(self.extractor) for _ in self.images]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Extract the features of the images and add them to the statistics."""
        for batch in stacked(data_samples, *self.images):
            self.extractor.to(batch[0].device)
            for stream, images in zip(self.streams, batch, strict=True):
                stream.add(self.extractor(to_bytes(images)))

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge the statistics of all processes and compute the distance.

        Args:
            size: Number of images in the data set.
        """
        # The sampler gives rank r the images r, r + world size, …
        share = max(0, -(-(size - get_rank()) // get_world_size()))
        self.results = [[stream.finish(share) for stream in self.streams]]
        self._reset()
        return super().evaluate(get_world_size())

    @staticmethod
    def _joined(results: list[list[FeatureStatistics]]) -> list[FeatureStatistics]:
        first, *others = results
        for other in others:
            for statistics, more in zip(first, other, strict=True):
                statistics.merge(more)
        return first


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

    def __init__(
        self, extractor: dict | FeatureExtractor | None = None, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(extractor, collect_device, prefix)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the distance from the statistics of all processes."""
        originals, reconstructions = self._joined(results)
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
        require_same_extractor(
            self.streams[0].statistics, self.reference, f'{reference}: statistics of the images and of the file'
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the distance from the statistics of all processes."""
        (generated,) = self._joined(results)
        return {self.extractor.key('fid'): frechet_distance(generated, self.reference)}
