# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of a model that ignores its input."""

from __future__ import annotations

import torch
from torch import Tensor


def constant_prediction(frequencies: Tensor, label_smoothing: float, vocab_size: int) -> Tensor:
    """Cross entropy of the best constant prediction, which is the entropy of the mean target.

    A training whose loss stays there has learned the frequencies of the codes only.

    Args:
        frequencies: Mean of the targets over the positions, before smoothing, (K,) with K at most
            ``vocab_size``.
        label_smoothing: Share of the target that is spread over the vocabulary.
        vocab_size: Number of classes of the logits.

    Returns:
        Nats, a float32 scalar without a gradient.

    Example:
        >>> constant_prediction(torch.tensor([0.5, 0.5]), 0.0, 2)
        tensor(0.6931)
    """
    smoothed = (1 - label_smoothing) * frequencies.detach().float() + label_smoothing / vocab_size
    others = torch.special.entr(smoothed.new_full((), label_smoothing / vocab_size))
    return torch.special.entr(smoothed).sum() + (vocab_size - len(frequencies)) * others
