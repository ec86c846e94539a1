# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a tokenizer loses, and how much of its codebook it uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from addp_mm.evaluation.batches import stacked
from addp_mm.registry import METRICS


@METRICS.register_module()
class PeakSignalNoiseRatio(BaseMetric):
    """Mean over images of 10 log10(1 / mean squared error), in dB; 100 for equal images.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            error = (images.double() - reconstructions.double()).square().mean((1, 2, 3))
            self.results.extend((-10 * error.clamp_min(1e-10).log10()).tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(psnr=float(np.mean(results)))


@METRICS.register_module()
class CodebookUsage(BaseMetric):
    """Share of the codes that occur in the predictions' ``ids``, in percent, and their perplexity.

    Args:
        codebook_size: Number of codes.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'codebook'

    def __init__(self, codebook_size: int, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.codebook_size = codebook_size
        # the ids themselves, not counts a code: an image has fewer tokens than there are codes
        self.dtype = np.min_scalar_type(codebook_size)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            ids = sample['ids'].cpu().numpy().ravel()
            if ids.min() < 0 or ids.max() >= self.codebook_size:
                raise ValueError(
                    f'ids lie in [{ids.min()}, {ids.max()}], and CodebookUsage was given '
                    f"codebook_size={self.codebook_size}: give it the tokenizer's"
                )
            self.results.append(ids.astype(self.dtype))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        counts = np.bincount(np.concatenate(results), minlength=self.codebook_size)
        shares = counts[counts > 0] / counts.sum()
        return dict(
            usage=100 * len(shares) / self.codebook_size, perplexity=float(np.exp(-(shares * np.log(shares)).sum()))
        )
