# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the sampler needs from a model."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Tokenizer(Protocol):
    """The attributes of a tokenizer that the sampler uses."""

    @property
    def codebook(self) -> Tensor:
        """Vectors of the codes, (K, D)."""

    def lookup(self, ids: Tensor, height: int, width: int) -> Tensor:
        """Latents (B, D, height, width) of ids (B, L)."""


class AlternatingModel(Protocol):
    """The attributes of a model, such as ADDP, that the sampler uses."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""

    def tokenize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, L) and latents (B, D, h, w) of images (B, C, H, W) in [0, 1].

        In float32, also under autocast.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, C, H, W), float32, about [0, 1], of latents (B, D, h, w).

        Under autocast it may compute in bfloat16. The sampler decodes finished images without
        autocast.
        """

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits over the codes, (B, L, codebook_size), from pixels and visible tokens."""

    def expected_latents(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Latents (B, D, h, w) that the predictor expects from visible tokens, for the start."""


class ConditionalModel(AlternatingModel, Protocol):
    """What the sampler also needs to generate images of given classes.

    ``labels`` are (B,) int64; -1 is "no class", and None is no class for all.
    """

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if the model is unconditional."""

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits over the codes, (B, L, codebook_size), given the classes."""

    def expected_latents(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, D, h, w) that the predictor expects given the classes, for the start."""
