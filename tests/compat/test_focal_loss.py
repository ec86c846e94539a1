# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of mmsegmentation's FocalLoss, against the loss computed by hand."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.focal_loss import patch_focal_loss


def focal_loss_by_hand(pred, target, num_classes, ignore_index=255, gamma=2.0, alpha=0.5):
    total, count = 0.0, 0
    for logits, label in zip(pred.movedim(1, -1).reshape(-1, num_classes), target.reshape(-1), strict=True):
        for c, logit in enumerate(logits):
            count += 1
            if label == ignore_index:
                continue
            hit = label == 1 if num_classes == 1 else label == c
            p = torch.sigmoid(logit)
            total += -alpha * (1 - p) ** gamma * p.log() if hit else -(1 - alpha) * p**gamma * (1 - p).log()
    return total / count


@pytest.mark.slow
def test_mmseg_focal_loss_on_the_cpu():
    from mmseg.models.losses import FocalLoss

    generator = torch.Generator().manual_seed(0)
    for num_classes in (1, 3):
        pred = torch.randn(2, num_classes, 2, 4, generator=generator)
        target = torch.randint(0, max(num_classes, 2), (2, 2, 4), generator=generator)
        target[0, 0, :2] = 255
        with pytest.raises((RuntimeError, ValueError)):
            FocalLoss.forward.__wrapped__(FocalLoss(), pred, target)
        torch.testing.assert_close(FocalLoss()(pred, target), focal_loss_by_hand(pred, target, num_classes))
    unreduced = FocalLoss(reduction='none')(pred, target)
    assert unreduced.shape == pred.shape
    assert unreduced[0, :, 0, :2].abs().max() == 0


def test_focal_loss_without_the_fault_stays():

    class FocalLoss:
        def __call__(self, pred, target):
            return self.forward(pred, target)

        def forward(self, pred, target):
            return pred.sum()

    forward = FocalLoss.forward
    assert not patch_focal_loss(module_with(FocalLoss=FocalLoss))
    assert FocalLoss.forward is forward
