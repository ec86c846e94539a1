# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of token labelling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.registry import MODELS

#: Share of the label map in the class target where its class is that of the ground truth, and else.
_SHARE_AGREE, _SHARE_DIFFER = 0.5, 0.9


@MODELS.register_module()
class TokenLabelLoss(nn.Module):
    """Cross entropy of the class logits and of every token's logits (arXiv 2104.10858).

    Computed in float32. With label maps, the class target is the label map's class; with
    ``with_ground_truth`` it is mixed with the ground truth, half and half where both name the same
    class, else 0.9 and 0.1. Without label maps, the label of the image is the target of every
    token too, as in the published code.

    Args:
        with_ground_truth: Whether the class target contains the ground truth. VOLO sets it in
            fine-tuning only. Without label maps it has no effect. Defaults to False.
        cls_weight: Factor of the loss of the class logits. Defaults to 1.
        dense_weight: Factor of the loss of the tokens' logits. Defaults to 0.5.
    """

    def __init__(self, with_ground_truth: bool = False, cls_weight: float = 1.0, dense_weight: float = 0.5) -> None:
        super().__init__()
        self.with_ground_truth = with_ground_truth
        self.cls_weight = cls_weight
        self.dense_weight = dense_weight

    def forward(
        self, cls_logits: Tensor, token_logits: Tensor, target: Tensor, exchanged: float = 0.0
    ) -> dict[str, Tensor]:
        """The two losses.

        Args:
            cls_logits: (B, K).
            token_logits: (B, L, K). With mix-token, tokens are back in their own image.
            target: Probabilities. With label maps (B, K, 2 + L): ground truth, class of the label
                map, then one column for each token. Without: (B, K), the label of the image.
            exchanged: Share of the tokens that mix-token took from the flipped batch. The class
                target is mixed in the same share. Defaults to 0.

        Returns:
            ``loss_cls`` and ``loss_token``, scalars with their weights.
        """
        cls_target, token_target = self._targets(target.float(), token_logits.shape[1])
        cls_target = (1 - exchanged) * cls_target + exchanged * cls_target.flip(0)
        token_loss = F.cross_entropy(token_logits.float().transpose(1, 2), token_target)
        return dict(
            loss_cls=self.cls_weight * F.cross_entropy(cls_logits.float(), cls_target),
            loss_token=self.dense_weight * token_loss,
        )

    def _targets(self, target: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Targets of the class, (B, K), and of the tokens, (B, K, L)."""
        if target.dim() == 2:
            return target, target.unsqueeze(2).expand(-1, -1, num_tokens)
        truth, cls_target, tokens = target[:, :, 0], target[:, :, 1], target[:, :, 2:]
        if self.with_ground_truth:
            agree = truth.argmax(1, keepdim=True) == cls_target.argmax(1, keepdim=True)
            share = torch.where(agree, _SHARE_AGREE, _SHARE_DIFFER)
            cls_target = share * cls_target + (1 - share) * truth
        return cls_target, tokens
