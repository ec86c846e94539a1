# Copyright (c) addp_mm contributors. Apache-2.0.
"""Error of reconstructions, and usage of the codebook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from addp_mm.evaluation.batches import stacked
from addp_mm.registry import METRICS


@METRICS.register_module()
class PeakSignalNoiseRatio(BaseMetric):
    """PSNR: mean over images of 10 log10(1 / mean squared error), in dB; 100 for equal images.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1], of each prediction.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the PSNR of each image."""
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            error = (images.double() - reconstructions.double()).square().mean((1, 2, 3))
            self.results.extend((-10 * error.clamp_min(1e-10).log10()).tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average the images."""
        return dict(psnr=float(np.mean(results)))


@METRICS.register_module()
class CodebookUsage(BaseMetric):
    """Share of the codes that are used, in percent, and the perplexity of their frequencies.

    Reads ``ids``, (L), of each prediction.

    Args:
        codebook_size: Number of codes.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.
    """

    default_prefix = 'codebook'

    def __init__(self, codebook_size: int, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.codebook_size = codebook_size
        # Ids are kept, not counts: an image has fewer tokens than the codebook has codes.
        self.dtype = np.min_scalar_type(codebook_size)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the ids of each image."""
        for sample in data_samples:
            ids = sample['ids'].cpu().numpy().ravel()
            if ids.min() < 0 or ids.max() >= self.codebook_size:
                raise ValueError(
                    f'ids are in [{ids.min()}, {ids.max()}], but CodebookUsage has codebook_size={self.codebook_size}. '
                    "Set it to the tokenizer's codebook_size"
                )
            self.results.append(ids.astype(self.dtype))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Count the codes of all images."""
        counts = np.bincount(np.concatenate(results), minlength=self.codebook_size)
        shares = counts[counts > 0] / counts.sum()
        return dict(
            usage=100 * len(shares) / self.codebook_size, perplexity=float(np.exp(-(shares * np.log(shares)).sum()))
        )
