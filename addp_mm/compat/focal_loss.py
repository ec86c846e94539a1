# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmsegmentation's FocalLoss on the CPU."""

from typing import Any

from addp_mm.compat.importing import replace_method


def patch_focal_loss(module: Any) -> bool:
    """Make mmseg's ``FocalLoss`` accept label maps on the CPU.

    Its code for the CPU keeps one column of the one-hot target instead of all except the last.

    Args:
        module: ``mmseg.models.losses.focal_loss``.

    Returns:
        Whether a label map fails.
    """
    import torch

    try:
        module.FocalLoss()(torch.zeros(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long))
    except (RuntimeError, ValueError):
        replace_method(module.FocalLoss, 'forward', _make_forward)
        return True
    return False


def _make_forward(original):

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None, ignore_index=255, **kwargs):
        import torch
        import torch.nn.functional as F

        # mmseg calls mmcv's operator on CUDA only, and fails on all other devices
        if not pred.is_cuda and target.dim() == pred.dim() - 1:
            num_classes = pred.size(1)
            valid = target != ignore_index
            labels = torch.where(valid, target, 0)
            if num_classes == 1:
                one_hot = labels.unsqueeze(1)
            else:
                one_hot = F.one_hot(labels, num_classes + 1)[..., :num_classes].movedim(-1, 1)
            valid = valid.reshape(-1, 1).to(pred.dtype)
            weight = valid if weight is None else valid * weight.reshape(valid.size(0), -1)
            target = one_hot.to(pred.dtype)
        return original(
            self,
            pred,
            target,
            weight=weight,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
            ignore_index=ignore_index,
            **kwargs,
        )

    return forward
