# Copyright (c) addp_mm contributors. Apache-2.0.
"""Batches of stored token ids instead of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class StoredIds:
    """Recognises batches of ids (:class:`~addp_mm.datasets.TokenIds`) and checks their ids.

    Args:
        num_tokens: Number of image tokens L of the predictor.
        codebook_size: Number of its codes.
    """

    def __init__(self, num_tokens: int, codebook_size: int) -> None:
        self.num_tokens, self.codebook_size = num_tokens, codebook_size
        self._checked = False

    def read(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | None:
        """Ids of a batch; None if it contains images.

        Args:
            inputs: Ids (B, L) of any integer type, or a list of B rows of ids; or images
                (B, C, H, W), or a list with them as first entry.

        Returns:
            (B, L), int64.

        Raises:
            ValueError: The ids do not fit the predictor.
        """
        if not isinstance(inputs, Tensor):
            inputs = torch.stack(tuple(inputs)) if inputs[0].dim() == 1 else inputs[0]
        if inputs.dim() != 2 or inputs.is_floating_point():
            return None
        ids = inputs.long()
        self._check(ids)
        return ids

    @torch.compiler.disable  # it makes numbers of tensors
    def _check(self, ids: Tensor) -> None:
        """Check each batch on a CPU; only the first on a GPU, where the check would block."""
        if self._checked and ids.device.type != 'cpu':
            return
        low, high = int(ids.min()), int(ids.max())
        if ids.shape[1] != self.num_tokens or low < 0 or high >= self.codebook_size:
            raise ValueError(
                f'rows of {ids.shape[1]} ids from {low} to {high} do not fit a predictor of {self.num_tokens} '
                f'tokens and {self.codebook_size} codes: set its num_tokens and token_space to those of '
                'the tokenizer that wrote the ids'
            )
        self._checked = True
