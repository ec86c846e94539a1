# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a tokenizer loses, and how much of its codebook it uses."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from addp_mm.registry import METRICS


@METRICS.register_module()
class PeakSignalNoiseRatio(BaseMetric):
    """Mean over images of 10 log10(1 / mean squared error), in dB.

    Reads ``image`` and ``reconstruction``, (3, H, W) in [0, 1], of each prediction.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            error = (sample['image'].double() - sample['reconstruction'].double()).square().mean().item()
            self.results.append(-10 * np.log10(max(error, 1e-10)))

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

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append(np.bincount(sample['ids'].cpu().numpy(), minlength=self.codebook_size))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        counts = np.sum(results, axis=0)
        shares = counts[counts > 0] / counts.sum()
        return dict(usage=100 * len(shares) / self.codebook_size,
                    perplexity=float(np.exp(-(shares * np.log(shares)).sum())))
