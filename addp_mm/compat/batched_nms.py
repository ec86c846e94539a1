# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmcv's batched_nms in half precision."""

from typing import Any

from addp_mm.compat.importing import replace


def patch_batched_nms(module: Any) -> bool:
    """Compute ``batched_nms`` in float32 at least.

    With more boxes than ``split_thr`` mmcv writes scores into a tensor of another dtype if boxes
    and scores have two dtypes. And it adds a multiple of the largest coordinate to the boxes of
    each class, which half precision cannot hold: boxes of two classes suppress each other, or
    overflow.

    Args:
        module: ``mmcv.ops.nms``.

    Returns:
        Whether boxes and scores of float16 reach NMS in float16.
    """
    import torch

    received = []

    def keep_all(boxes, scores):
        received.append(boxes.dtype)
        return torch.cat([boxes, scores[:, None]], dim=1), torch.arange(len(boxes))

    boxes, scores = torch.zeros(1, 4, dtype=torch.float16), torch.zeros(1, dtype=torch.float16)
    nms, module.nms = module.nms, keep_all  # the compiled operator may not be there yet
    try:
        module.batched_nms(boxes, scores, torch.zeros(1, dtype=torch.long), dict(type='nms'))
    finally:
        module.nms = nms
    if received != [torch.float16]:
        return False
    replace(module, 'batched_nms', _make_batched_nms)
    return True


def _make_batched_nms(original):

    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        import torch

        returned = torch.promote_types(boxes.dtype, scores.dtype)
        computed = torch.promote_types(returned, torch.float32)
        dets, keep = original(boxes.to(computed), scores.to(computed), idxs, nms_cfg, class_agnostic)
        return dets.to(returned if returned.is_floating_point else computed), keep

    return batched_nms
