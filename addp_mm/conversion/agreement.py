# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the results of converted weights with those of the original implementation."""

from __future__ import annotations

from torch import Tensor

#: Largest allowed difference, relative to the largest value: rounding errors of float32 in up to 40
#: blocks. A wrong norm, shortcut or order of heads gives more than 0.1.
TOLERANCE = 1e-3


def compared(**results: tuple[Tensor, Tensor]) -> str:
    """Check that results agree with those of the original implementation.

    Args:
        **results: The converted result and the original one, of the same shape, by the name for
            messages.

    Returns:
        A sentence with shapes and differences.

    Raises:
        ValueError: A result is non-finite, or a difference is larger than :data:`TOLERANCE`.
    """
    shapes = finite(**{name: ours for name, (ours, _) in results.items()})
    differences = {name: relative_difference(ours, theirs) for name, (ours, theirs) in results.items()}
    too_large = [f'{name} by {value:.1e}' for name, value in differences.items() if not value <= TOLERANCE]
    if too_large:
        raise ValueError(
            f'the converted weights and the original implementation disagree: {", ".join(too_large)} of the '
            'largest value. Nothing was written'
        )
    return (
        f'{shapes}; the original implementation differs by '
        f'{", ".join(f"{value:.1e} ({name})" for name, value in differences.items())} of the largest value'
    )


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of two tensors, relative to the largest value of the second one.

    Raises:
        ValueError: The shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(
            f'the converted weights give {tuple(ours.shape)}, the original implementation {tuple(theirs.shape)}'
        )
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def finite(**results: Tensor) -> str:
    """Check that results are finite.

    Returns:
        A phrase with their shapes.

    Raises:
        ValueError: A result is non-finite.
    """
    for name, value in results.items():
        if not value.isfinite().all():
            raise ValueError(
                f'the forward pass gives {name} with NaN or Inf: the weights are damaged, or belong to another '
                'architecture'
            )
    return ', '.join(f'{name} {tuple(value.shape)}' for name, value in results.items())
