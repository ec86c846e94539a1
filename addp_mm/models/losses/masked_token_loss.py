# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of masked token modelling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def masked_token_losses(logits: Tensor, ids: Tensor, label_smoothing: float) -> dict[str, Tensor]:
    """Cross entropy and accuracy at the masked positions.

    Args:
        logits: Logits of the M masked tokens of a batch, (M, vocabulary).
        ids: Their ids, (M,), int64.
        label_smoothing: Share of the target that is spread over the vocabulary.

    Returns:
        ``loss``, computed in float32, and for the log ``accuracy``.
    """
    return dict(
        loss=F.cross_entropy(logits.float(), ids, label_smoothing=label_smoothing),
        accuracy=(logits.detach().argmax(-1) == ids).float().mean(),
    )
