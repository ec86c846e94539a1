# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classifiers that give logits at every position of their last feature map."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.config.config_file import ConfigError


class DenseClassifier(nn.Module, ABC):
    """A classifier whose last layers are applied at each position instead of after pooling.

    Args:
        name: Name of the classifier, for messages.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the images for which the classifier was made, in pixels."""

    @abstractmethod
    def position_logits(self, images: Tensor) -> Tensor:
        """Logits at each position, (B, classes, h, w); see :meth:`forward`."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits at each position.

        Args:
            images: RGB, (B, 3, H, W), 0 to 255.

        Returns:
            (B, classes, h, w).

        Raises:
            ConfigError: The classifier gives none at this size.
        """
        try:
            logits = self.position_logits(images)
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(
                f'{self.name} gives no logits at the positions of images of {images.shape[-1]} px '
                f'({type(error).__name__}: {str(error).splitlines()[0] if str(error) else "no message"}). Use another '
                '--img-size or another classifier'
            ) from error
        if logits.ndim != 4:
            raise ConfigError(f'{self.name} gives outputs {tuple(logits.shape)} instead of logits at each position')
        return logits

    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return module_fingerprint(self, type(self).__name__)


def to_positions(features: Tensor) -> Tensor:
    """Each position of a map as an image of its own.

    Args:
        features: (B, C, h, w).

    Returns:
        (B * h * w, C).
    """
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def from_positions(logits: Tensor, features: Tensor) -> Tensor:
    """The inverse of :func:`to_positions`: (B * h * w, K) to (B, K, h, w) of the map."""
    batch, _, height, width = features.shape
    return logits.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2)


def tokens_to_map(tokens: Tensor) -> Tensor:
    """Tokens of a square image, (B, L, C), as a map (B, C, h, w).

    Raises:
        ValueError: The tokens do not make a square.
    """
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(f'{tokens.shape[1]} tokens do not make a square')
    return tokens.transpose(1, 2).unflatten(2, (side, side))
