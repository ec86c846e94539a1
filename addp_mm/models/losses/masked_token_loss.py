# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of masked token modelling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from addp_mm.models.losses.constant_prediction import constant_prediction


def masked_token_losses(logits: Tensor, ids: Tensor, label_smoothing: float) -> dict[str, Tensor]:
    """Cross entropy and accuracy at the masked positions.

    Args:
        logits: Logits of the M masked tokens of a batch, (M, vocabulary).
        ids: Their ids, (M,), int64.
        label_smoothing: Share of the target that is spread over the vocabulary.

    Returns:
        ``loss``, computed in float32, and for the log ``accuracy`` and ``constant_prediction``, the
        loss of the best constant prediction of these ids.
    """
    ones = torch.ones(ids.shape, device=ids.device)
    counts = torch.zeros(logits.shape[-1], device=ids.device).index_add_(0, ids, ones)
    return dict(
        loss=F.cross_entropy(logits.float(), ids, label_smoothing=label_smoothing),
        accuracy=(logits.detach().argmax(-1) == ids).float().mean(),
        constant_prediction=constant_prediction(counts / len(ids), label_smoothing, logits.shape[-1]),
    )
