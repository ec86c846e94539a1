# Copyright (c) addp_mm contributors. Apache-2.0.
"""Batches of images from predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor


def require_entries(sample: dict, keys: Sequence[str]) -> None:
    """Refuse a prediction that lacks an entry.

    Raises:
        ValueError: The message names the missing entry.
    """
    missing = [key for key in keys if key not in sample]
    if missing:
        raise ValueError(f'a prediction has no {missing[0]!r}; it has {", ".join(sorted(sample))}')


def stacked(samples: Sequence[dict], *keys: str) -> Iterator[tuple[Tensor, ...]]:
    """Stack consecutive predictions of one image size into batches, in their order.

    Args:
        samples: Predictions with an image (C, H, W) under each key.
        *keys: Names of the images.

    Yields:
        One batch (B, C, H, W) for each key.

    Raises:
        ValueError: A prediction lacks a key, or its images differ in shape.
    """
    for sample in samples:
        require_entries(sample, keys)
        shapes = {key: tuple(sample[key].shape) for key in keys}
        if len(set(shapes.values())) > 1:
            raise ValueError(f'images of a prediction differ in shape: {shapes}')
    for _, group in groupby(samples, key=lambda sample: sample[keys[0]].shape):
        batch = list(group)
        yield tuple(torch.stack([sample[key] for sample in batch]) for key in keys)


def to_bytes(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to uint8, clipped and rounded as in an image file of 8 bits."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
