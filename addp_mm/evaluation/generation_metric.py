# Copyright (c) addp_mm contributors. Apache-2.0.
"""FID, IS, KID, precision and recall of the images that a run generates."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from addp_mm.errors import ConfigError
from addp_mm.evaluation.batches import stacked, to_bytes
from addp_mm.evaluation.compare_images import NEED_FEATURES, check_scores, compute_scores, missing_for, score_names
from addp_mm.evaluation.feature_cache import default_cache_dir
from addp_mm.evaluation.feature_extractors import FeatureExtractor, build_extractor
from addp_mm.evaluation.reference import Reference
from addp_mm.registry import METRICS


@METRICS.register_module()
class GenerationMetric(BaseMetric):
    """Scores of generated images: FID, IS, KID, precision and recall.

    Reads ``image``, (C, H, W) in [0, 1], of each prediction, rounded to 8 bits. All scores use the
    features of one network. Their keys are ``fid`` (``fid_adm`` against given statistics), ``is``,
    ``is_std``, ``kid``, ``kid_std``, ``precision`` and ``recall``; with a network other than FID's
    Inception ``fid[NAME]`` and so on.

    Args:
        scores: Any of 'fid', 'is', 'kid' and 'prc' (precision and recall). Defaults to ('fid', ).
        reference: Folder of images, or .npz file; see
            :class:`~addp_mm.evaluation.reference.Reference`. Defaults to None: only IS can be
            computed.
        extractor: Config of :class:`InceptionFeatures`, :class:`BackboneFeatures` or
            :class:`ClassifierFeatures`; the name of a shipped one, such as 'addp-vit-nano-p8', or
            the path of its config; or the module. Defaults to None: Inception with FID's weights.
        img_size: Side to which the images of the reference are resized. Defaults to None.
        kid_subset_size: Images in a subset of KID. Defaults to 1000.
        cache_dir: Folder of the reference's cached features. Defaults to None:
            ``~/.cache/addp_mm/features``.
        batch_size: Images of the reference in a batch. Defaults to 64.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.

    Raises:
        UserError: A score is unknown or cannot be computed with this network or reference.
    """

    default_prefix = 'generation'
    # mmengine takes a dict with a key 'metrics' for an Evaluator, so the argument is called scores

    def __init__(
        self,
        scores: Sequence[str] = ('fid',),
        reference: str | os.PathLike | None = None,
        extractor: dict | str | FeatureExtractor | None = None,
        img_size: int | None = None,
        kid_subset_size: int = 1000,
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.scores, self.kid_subset_size = check_scores(scores), kid_subset_size
        self.extractor = build_extractor(extractor)
        self.reference: Reference | None = None
        if reference is not None:
            cache_dir = cache_dir or default_cache_dir()
            self.reference = Reference(reference, self.extractor, img_size, cache_dir, batch_size, get_device())
        for score in self.scores:
            reason = missing_for(score, self.extractor, self.reference)
            if reason:
                raise ConfigError(f'GenerationMetric: {score} cannot be computed: {reason}')
        if self.reference is not None:
            print_log(f'generated images are compared with {reference}: {self.reference.convention}', logger='current')
            if self.scores != ('is',):
                self.reference.prepare(any(score in NEED_FEATURES for score in self.scores))

    @property
    def names(self) -> list[str]:
        """Keys of the values, without the prefix."""
        return [name for score in self.scores for name in score_names(score, self.extractor, self.reference)]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the features of the image of each prediction."""
        for (images,) in stacked(data_samples, 'image'):
            self.extractor.to(images.device)
            vectors, logits = self.extractor.with_logits(to_bytes(images))
            kept = [vectors.float().cpu()]
            if 'is' in self.scores and logits is not None:
                kept.append(logits.float().cpu())
            # Cloned: a view would be gathered with the memory of the whole batch.
            self.results.extend(tuple(row.clone() for row in rows) for rows in zip(*kept, strict=True))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores from the features of all processes."""
        vectors, *logits = (torch.stack(rows) for rows in zip(*results, strict=True))
        return compute_scores(
            self.scores, self.extractor, vectors, logits[0] if logits else None, self.reference, self.kid_subset_size
        )
