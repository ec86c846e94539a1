# Copyright (c) addp_mm contributors. Apache-2.0.
"""One stream of random numbers for each generated image."""

from __future__ import annotations

import torch

# odd, so that no two images of a run have the same seed
_STRIDE = 0x9E3779B1


def image_generator(seed: int, index: int) -> torch.Generator:
    """The random stream of one image, from the seed of the run and the image's index alone.

    It is stream ``index`` of :func:`image_generators` with a CPU generator of this seed.

    Args:
        seed: Seed of the run.
        index: Index of the image, from 0.

    Raises:
        ValueError: ``index`` is outside [0, 2**32), where streams would repeat.
    """
    return _stream(_base(torch.Generator().manual_seed(seed)), index)


def image_generators(num_images: int, generator: torch.Generator) -> list[torch.Generator]:
    """One random stream for each image, all from one number drawn from ``generator``.

    An image's noise depends on its index only, so that batches can have any size.

    Args:
        num_images: Number of images.
        generator: Advanced by one number.
    """
    base = _base(generator)
    return [_stream(base, index) for index in range(num_images)]


def _base(generator: torch.Generator) -> int:
    return int(torch.randint(2**32, (), generator=generator, device=generator.device))


def _stream(base: int, index: int) -> torch.Generator:
    if not 0 <= index < 2**32:
        raise ValueError(f'the index of an image must be from 0 to 2**32 - 1, got {index}')
    # a CPU generator uses its seed modulo 2**32
    return torch.Generator().manual_seed((base + index * _STRIDE) % 2**32)
