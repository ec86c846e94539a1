# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cross entropy against probabilities."""

from __future__ import annotations

from torch import Tensor, nn

from addp_mm.models.losses.constant_prediction import constant_prediction
from addp_mm.registry import MODELS


@MODELS.register_module()
class SoftTargetCrossEntropy(nn.Module):
    """Cross entropy against soft targets with label smoothing (ADDP, arXiv 2306.05423).

    The loss is averaged over positions and computed in float32. Targets with fewer classes than the
    logits are zero at the others; smoothing is over all classes of the logits. Neither a padded nor
    a smoothed target is made.

    Args:
        label_smoothing: Share of the target spread evenly over the classes. Defaults to 0.1.
        loss_weight: Factor of the loss. Defaults to 1.

    Raises:
        ValueError: ``label_smoothing`` is outside [0, 1).

    Example:
        >>> import torch
        >>> SoftTargetCrossEntropy(0.)(torch.zeros(5, 4), torch.eye(5, 3)[:, :3].softmax(-1))
        tensor(1.3863)
    """

    def __init__(self, label_smoothing: float = 0.1, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f'label_smoothing must be in [0, 1), got {label_smoothing}')
        self.label_smoothing = label_smoothing
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: (N, V).
            target: Probabilities, (N, K) with K <= V.

        Raises:
            ValueError: N differs or K > V.
        """
        num_targets = target.shape[-1]
        if num_targets > logits.shape[-1] or len(logits) != len(target):
            raise ValueError(f'target {tuple(target.shape)} does not fit logits {tuple(logits.shape)}')
        log_probs = logits.float().log_softmax(-1)
        # the smoothed target is (1 - smoothing) * target + smoothing / V
        loss = (self.label_smoothing - 1) * (target.float() * log_probs[:, :num_targets]).sum(-1).mean()
        if self.label_smoothing:
            loss = loss - self.label_smoothing * log_probs.mean()
        return self.loss_weight * loss

    def constant_prediction(self, target: Tensor, vocab_size: int) -> Tensor:
        """The loss of the best constant prediction, a scalar without a gradient.

        Args:
            target: Probabilities, (N, K).
            vocab_size: Number of classes of the logits, at least K.
        """
        return self.loss_weight * constant_prediction(target.float().mean(0), self.label_smoothing, vocab_size)
