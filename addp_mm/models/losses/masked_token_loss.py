# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of masked token modelling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def masked_token_losses(logits: Tensor, ids: Tensor, mask: Tensor, label_smoothing: float) -> dict[str, Tensor]:
    """Cross entropy and accuracy at the masked positions.

    Args:
        logits: (B, L, vocabulary).
        ids: (B, L), int64.
        mask: (B, L), bool, True where masked.
        label_smoothing: Share of the target that is spread over the vocabulary.

    Returns:
        ``loss``, computed in float32, and for the log ``accuracy``.
    """
    predicted, targets = logits[mask], ids[mask]
    return dict(
        loss=F.cross_entropy(predicted.float(), targets, label_smoothing=label_smoothing),
        accuracy=(predicted.detach().argmax(-1) == targets).float().mean(),
    )
