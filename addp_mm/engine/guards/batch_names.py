# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of the samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from addp_mm.engine.guards.plain_data import batch_size


def batch_names(batch: Any, dataset: Any = None) -> list[str]:
    """Names of the samples of a batch.

    Args:
        batch: A batch of a data loader, before the data preprocessor.
        dataset: The dataset; if it has ``find_rows``, it names ids (B, L) without a data sample.
            Defaults to None.

    Returns:
        For each sample its file (``img_path`` of the data sample), else its number in the dataset
        or in the batch.
    """
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    inputs = batch.get('inputs') if isinstance(batch, Mapping) else batch
    size = batch_size(batch)
    listed = list(samples) if isinstance(samples, Sequence) else [None] * size
    names = [_name(sample) for sample in listed]
    if not any(names) and isinstance(inputs, Tensor) and inputs.dim() == 2 and hasattr(dataset, 'find_rows'):
        names = dataset.find_rows(inputs.cpu().numpy())
    return [name or f'sample {index} of the batch' for index, name in enumerate(names)]


def _name(sample: Any) -> str:
    path = getattr(sample, 'img_path', None)
    if path is None and isinstance(sample, Mapping):
        path = sample.get('img_path')
    if isinstance(path, (list, tuple)):
        path = ', '.join(map(str, path))
    number = getattr(sample, 'sample_idx', None)
    return str(path) if path else '' if number is None else f'sample {number} of the dataset'
