# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of losses that fail in half precision."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.half_losses import patch_half_loss


def test_a_loss_gets_float32_instead_of_half_precision():
    """The failing line of VFNet's loss, in a head that stands in for it."""

    class VFNetHead:
        def loss_by_feat(self, scores, boxes, batch_gt_instances=None):
            targets = torch.zeros_like(scores[0])
            targets[torch.tensor([1])] = torch.ones(1)
            return dict(loss=(scores[0] - targets).sum(), dtypes=(boxes['first'].dtype, batch_gt_instances.dtype))

    module = module_with(VFNetHead=VFNetHead)
    module.__name__ = 'mmdet.models.dense_heads.vfnet_head'
    head, labels = VFNetHead(), torch.tensor([3])
    half = [torch.full((2,), 2.0, dtype=torch.bfloat16, requires_grad=True)]
    arguments = half, dict(first=torch.zeros(1, dtype=torch.float16))
    with pytest.raises(RuntimeError, match='dtypes match'):
        head.loss_by_feat(*arguments, batch_gt_instances=labels)
    assert patch_half_loss(module)
    result = head.loss_by_feat(*arguments, batch_gt_instances=labels)
    assert result['loss'].item() == 3
    assert result['dtypes'] == (torch.float32, torch.int64)
    result['loss'].backward()
    assert half[0].grad.tolist() == [1, 1]
