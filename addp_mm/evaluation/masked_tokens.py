# Copyright (c) addp_mm contributors. Apache-2.0.
"""How well a predictor guesses masked tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from addp_mm.registry import METRICS

_READ = ('mask_ratios', 'ids', 'masks', 'predicted', 'log_likelihood')


@METRICS.register_module()
class MaskedTokenAccuracy(BaseMetric):
    """Share of masked tokens whose likeliest code is the true one, and their cross entropy in nats, by mask ratio.

    Reads of each prediction what :meth:`~addp_mm.models.selfsup.PredictorPretrain.predict` gives:
    ``mask_ratios`` (R numbers), ``ids`` (L), ``masks`` (R, L), ``predicted`` (R, L) and ``log_likelihood`` (R, L). All masked tokens of
    all images count alike. Keys are ``accuracy@0.50``, in [0, 1], and ``cross_entropy@0.50``, which
    is ln(codes) for a predictor that knows nothing.

    Raises:
        ValueError: A prediction lacks an entry, or was made at other ratios than the first.
    """

    default_prefix = 'predictor'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            missing = [key for key in _READ if key not in sample]
            if missing:
                raise ValueError(f'a prediction holds no {missing[0]!r}; it has {", ".join(sorted(sample))}')
            masks = sample['masks']
            hits = ((sample['predicted'] == sample['ids']) & masks).sum(-1)
            nats = -sample['log_likelihood'].double().masked_fill(~masks, 0.0).sum(-1)
            sums = torch.stack([masks.sum(-1).double(), hits.double(), nats])
            self.results.append((tuple(map(float, sample['mask_ratios'])), sums.tolist()))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        ratios = results[0][0]
        other = next((found for found, _ in results if found != ratios), ratios)
        if other != ratios:
            raise ValueError(f'predictions were made at mask ratios {ratios} and at {other}')
        counts, hits, nats = torch.tensor([sums for _, sums in results], dtype=torch.float64).sum(0)
        found = {}
        for ratio, accuracy, entropy in zip(ratios, (hits / counts).tolist(), (nats / counts).tolist(), strict=True):
            name = f'{ratio:.2f}' if round(ratio, 2) == ratio else f'{ratio:g}'
            found.update({f'accuracy@{name}': accuracy, f'cross_entropy@{name}': entropy})
        return found
