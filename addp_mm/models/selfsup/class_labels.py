# Copyright (c) addp_mm contributors. Apache-2.0.
"""Class labels of a batch, and their random removal in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from addp_mm.diffusion.token_space import NO_CLASS, ClassLabelError, TokenSpace
from addp_mm.models.layers.errors import OptionError


def check_drop_rate(rate: float) -> float:
    """Return a ``class_drop_rate``.

    Raises:
        OptionError: It is not a share.
    """
    if not 0 <= rate <= 1:
        raise OptionError(f'class_drop_rate must be in [0, 1], got {rate}')
    return rate


def read_labels(
    data_samples: Sequence[Any] | None, space: TokenSpace, device: torch.device, required: bool = True
) -> Tensor | None:
    """Read the classes of a batch for a class-conditional model.

    Args:
        data_samples: B data samples with ``gt_label``, one number, such as mmpretrain's; -1: no
            class.
        space: Token space of the model.
        device: Device of the result.
        required: Whether every image needs a label. Otherwise one without a label has no class.
            Defaults to True.

    Returns:
        (B,), int64; None if the model is unconditional or no image has a label.

    Raises:
        ClassLabelError: A label is missing, is not one number, or is not a class.
    """
    if not space.num_classes:
        return None
    found = [getattr(sample, 'gt_label', None) for sample in data_samples or ()]
    if required and (not found or any(label is None for label in found)):
        raise ClassLabelError(
            f'the model has {space.num_classes} classes (token_space.num_classes), but a training image has no label '
            '(gt_label). Read a labelled data set (with_label=True), or store the labels with the ids '
            '(tokenize_images.py --labels), or set num_classes=0 in every token_space'
        )
    if all(label is None for label in found):
        return None
    labels = torch.tensor([NO_CLASS if label is None else _one_number(label) for label in found])
    space.check_labels(labels)
    return labels.to(device)


def drop_labels(labels: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Replace the label of each image by -1, no class, with a probability.

    The model so learns the unconditional distribution too (classifier-free guidance, arXiv
    2207.12598).

    Args:
        labels: (B,), int64.
        rate: The probability; 0: nothing is drawn.
        generator: Source of the noise, on the CPU.

    Returns:
        (B,), int64.
    """
    if not rate:
        return labels
    dropped = torch.rand(len(labels), generator=generator) < rate
    return labels.masked_fill(dropped.to(labels.device), NO_CLASS)


def _one_number(label: Any) -> int:
    numbers = torch.as_tensor(label).flatten().tolist()
    if len(numbers) != 1:
        raise ClassLabelError(
            f'an image has {len(numbers)} labels ({numbers}), and a class-conditional model takes one: give a data set '
            'with one class for each image'
        )
    return int(numbers[0])
