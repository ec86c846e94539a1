# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of reconstructions to their originals, and of generated images to a reference."""

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
    """Statistics of the images that one process sees; the last image is held back, because it may be padding."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
        self.last: Tensor | None = None

    @property
    def count(self) -> int:
        return self.statistics.count + (self.last is not None)

    def add(self, features: Tensor) -> None:
        if self.last is not None:
            features = torch.cat([self.last.to(features), features])
        self.statistics.update(features[:-1])
        self.last = features[-1:]

    def finish(self, share: int) -> FeatureStatistics:
        """Statistics of the first ``share`` images, of which there may be one more."""
        if self.count > share + 1:
            raise ValueError(
                f'this process saw {self.count} images and its share of the data set is {share}: the Fréchet distance '
                "counts each image once; use sampler=dict(type='DefaultSampler', shuffle=False)"
            )
        if self.last is not None and self.count <= share:
            self.statistics.update(self.last)
        return self.statistics.cpu()


class _FrechetMetric(BaseMetric):
    """Base: statistics of the features of one or more images of each prediction, in one pass.

    Each process keeps its own; they are joined in the order of ranks, without the images by which a
    sampler fills up the last round.
    """

    images: tuple[str, ...]

    def __init__(self, extractor: dict | FeatureExtractor | None, collect_device: str, prefix: str | None) -> None:
        super().__init__(collect_device, prefix)
        self.extractor = build_extractor(extractor)
        self._start()

    def _start(self) -> None:
        self.streams = [_Stream(self.extractor) for _ in self.images]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for batch in stacked(data_samples, *self.images):
            self.extractor.to(batch[0].device)
            for stream, images in zip(self.streams, batch, strict=True):
                stream.add(self.extractor(to_bytes(images)))

    def evaluate(self, size: int) -> dict[str, float]:
        # a sampler deals the images out in turn: rank r has those of index r, r + world size, …
        share = max(0, -(-(size - get_rank()) // get_world_size()))
        self.results = [[stream.finish(share) for stream in self.streams]]
        self._start()
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
    """Fréchet distance of the reconstructions to their originals: rFID with Inception's features.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction; both are
    rounded to 8 bits. The key is ``rfid`` for Inception with FID's weights and ``rfid[NAME]`` for
    every other extractor.

    Args:
        extractor: Config of :class:`InceptionFeatures` or :class:`BackboneFeatures`, or the module;
            by default Inception with FID's weights.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'reconstruction'
    images = ('image', 'reconstruction')

    def __init__(
        self, extractor: dict | FeatureExtractor | None = None, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(extractor, collect_device, prefix)

    def compute_metrics(self, results: list) -> dict[str, float]:
        originals, reconstructions = self._joined(results)
        return {self.extractor.key('rfid'): frechet_distance(originals, reconstructions)}


@METRICS.register_module()
class FrechetDistance(_FrechetMetric):
    """Fréchet distance of generated images to the statistics of a reference: FID with Inception's features.

    Reads ``image``, (C, H, W) in [0, 1], of each prediction, rounded to 8 bits. The key is ``fid``
    for Inception with FID's weights and ``fid[NAME]`` for every other extractor.

    Args:
        reference: .npz that :meth:`FeatureStatistics.save` wrote;
            tools/analysis_tools/frechet_distance.py makes it from a folder.
        extractor: Config of :class:`InceptionFeatures` or :class:`BackboneFeatures`, or the module;
            by default Inception with FID's weights.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        StatisticsError: If the reference cannot be read or is of another extractor.
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
        require_same_extractor(self.streams[0].statistics, self.reference, f'images and {reference}: statistics')

    def compute_metrics(self, results: list) -> dict[str, float]:
        (generated,) = self._joined(results)
        return {self.extractor.key('fid'): frechet_distance(generated, self.reference)}
