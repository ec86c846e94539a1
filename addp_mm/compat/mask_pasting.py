# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masks of boxes that lie outside of the image, in mmdet's ``FCNMaskHead`` on the CPU."""

from typing import Any

from addp_mm.compat.importing import replace


def patch_mask_pasting(module: Any) -> bool:
    """Let mmdet paste the mask of a box outside of the image, which covers no pixel.

    On the CPU only the region of the boxes is pasted. That of a box outside of the image would end
    before it starts. Heads that do not clip their boxes, such as that of QueryInst, predict them.

    Args:
        module: ``mmdet.models.roi_heads.mask_heads.fcn_mask_head``.

    Returns:
        Whether such a box fails.
    """
    import torch

    try:
        module._do_paste_mask(torch.zeros(1, 1, 2, 2), torch.tensor([[9.0, 0, 12, 3]]), 4, 4)  # noqa: SLF001  # mmdet's function with the fault
    except RuntimeError:
        replace(module, '_do_paste_mask', _make_paste)
        return True
    return False


def _make_paste(original):

    def _do_paste_mask(masks, boxes, img_h, img_w, skip_empty=True):
        if skip_empty and len(boxes):
            start = (boxes[:, :2].amin(0).floor() - 1).clamp(min=0)
            end = (boxes[:, 2:].amax(0).ceil() + 1).minimum(boxes.new_tensor([img_w, img_h]))
            if not (start < end).all():  # also if a border is NaN
                return masks.float().new_zeros(len(boxes), 0, 0), (slice(0, 0), slice(0, 0))
        return original(masks, boxes, img_h, img_w, skip_empty)

    return _do_paste_mask
