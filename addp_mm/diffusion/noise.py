# Copyright (c) addp_mm contributors. Apache-2.0.
"""Seeded noise that is independent of the model's device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GeneratorLike = torch.Generator | Sequence[torch.Generator]


def uniform_noise(
    batch_size: int, *shape: int, generator: GeneratorLike, device: torch.device | str | None = None
) -> Tensor:
    """Uniform noise in [0, 1), drawn on the generator's device and moved to ``device``.

    A generator on the CPU therefore gives the same noise to a model on a GPU and to one on the CPU.

    Args:
        batch_size: Number of rows B.
        *shape: Shape of a row.
        generator: One generator for the batch, or one for each row. With one for each row, a row's
            noise does not depend on the other rows.
        device: Device of the noise. Defaults to None: that of the generator.

    Returns:
        ``(B, *shape)``, float32.

    Raises:
        ValueError: The number of generators is not B.
    """
    if isinstance(generator, torch.Generator):
        return torch.rand(batch_size, *shape, generator=generator, device=generator.device).to(device)
    if len(generator) != batch_size:
        raise ValueError(f'{len(generator)} generators for a batch of {batch_size}: give one, or one for each image')
    return torch.stack([torch.rand(*shape, generator=one, device=one.device).to(device) for one in generator])
