# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of mmsegmentation's cross entropy with class weights."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.weighted_cross_entropy import patch_weighted_cross_entropy


@pytest.mark.slow
def test_mmseg_class_weights_leave_unlabelled_pixels_out():
    """The mean over labelled pixels, each with the weight of its class, computed by hand."""
    from mmseg.models.losses import CrossEntropyLoss

    generator = torch.Generator().manual_seed(0)
    pred, weights = torch.randn(2, 3, 2, 4, generator=generator), [0.1, 1.0, 2.0]
    target = torch.randint(0, 3, (2, 2, 4), generator=generator)
    for unlabelled in (0, 2):
        target[0, 0, :unlabelled] = 255
        total, count = 0.0, 0.0
        for logits, label in zip(pred.movedim(1, -1).reshape(-1, 3), target.reshape(-1), strict=True):
            if label != 255:
                total -= weights[label] * logits.log_softmax(0)[label]
                count += weights[label]
        loss = CrossEntropyLoss(class_weight=weights)(pred, target, ignore_index=255)
        torch.testing.assert_close(loss, total / count)
    healthy = module_with(cross_entropy=lambda *args, **kwargs: 0.0)
    original = healthy.cross_entropy
    assert not patch_weighted_cross_entropy(healthy)
    assert healthy.cross_entropy is original
