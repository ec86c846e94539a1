# Copyright (c) addp_mm contributors. Apache-2.0.
"""Class labels of images to generate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from addp_mm.diffusion.token_space import NO_CLASS, check_classes
from addp_mm.errors import ConfigError


def class_labels(labels: Tensor | Sequence[int] | None, num_images: int, num_classes: int) -> Tensor | None:
    """Check the labels of a number of images.

    Args:
        labels: A class for each image; -1 is "no class". None: no class for all.
        num_images: Number of images N.
        num_classes: Classes of the model; 0 if it is unconditional.

    Returns:
        (N,) int64, or None if no image has a class.

    Raises:
        ConfigError: The labels are not one whole number for each image.
        ClassLabelError: There is no such class.
    """
    if labels is None:
        return None
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (num_images,):
        raise ConfigError(
            f'labels must be a whole number for each of {num_images} image(s), got {labels.dtype} of shape '
            f'{tuple(labels.shape)}'
        )
    check_classes(labels.tolist(), num_classes)
    return labels.long() if (labels != NO_CLASS).any() else None
