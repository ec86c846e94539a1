# Copyright (c) addp_mm contributors. Apache-2.0.
"""Accuracy of a token predictor on masked tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from addp_mm.evaluation.batches import require_entries
from addp_mm.registry import METRICS

_READ = ('mask_ratios', 'ids', 'masks', 'predicted', 'log_likelihood')


@METRICS.register_module()
class MaskedTokenAccuracy(BaseMetric):
    """Accuracy and cross entropy (nats) of predicted codes at masked positions, by mask ratio.

    Reads the entries of :meth:`~addp_mm.models.selfsup.PredictorPretrain.predict`: ``mask_ratios``
    (R numbers), ``ids`` (L), ``masks`` (R, L), ``predicted`` (R, L) and ``log_likelihood`` (R, L).
    All masked tokens of all images have the same weight. The keys are ``accuracy@0.50``, in [0, 1],
    and ``cross_entropy@0.50``, which is ln(number of codes) for uniform predictions.

    Raises:
        ValueError: A prediction lacks an entry, or has other mask ratios than the first one.
    """

    default_prefix = 'predictor'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Count masked and correct tokens of each image, and add up the cross entropy."""
        for sample in data_samples:
            require_entries(sample, _READ)
            masks = sample['masks']
            hits = ((sample['predicted'] == sample['ids']) & masks).sum(-1)
            nats = -sample['log_likelihood'].double().masked_fill(~masks, 0.0).sum(-1)
            sums = torch.stack([masks.sum(-1).double(), hits.double(), nats])
            self.results.append((tuple(map(float, sample['mask_ratios'])), sums.tolist()))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Average over all masked tokens."""
        ratios = results[0][0]
        other = next((found for found, _ in results if found != ratios), ratios)
        if other != ratios:
            raise ValueError(f'all predictions need the same mask ratios, got {ratios} and {other}')
        counts, hits, nats = torch.tensor([sums for _, sums in results], dtype=torch.float64).sum(0)
        found = {}
        for ratio, accuracy, entropy in zip(ratios, (hits / counts).tolist(), (nats / counts).tolist(), strict=True):
            name = f'{ratio:.2f}' if round(ratio, 2) == ratio else f'{ratio:g}'
            found.update({f'accuracy@{name}': accuracy, f'cross_entropy@{name}': entropy})
        return found
