# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of pasted masks whose boxes are outside of the image."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.mask_pasting import patch_mask_pasting


def test_the_mask_of_a_box_outside_of_the_image_covers_no_pixel():
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    masks, inner = torch.ones(1, 1, 4, 4), torch.tensor([[1.0, 1, 3, 3]])
    paste = fcn_mask_head._do_paste_mask
    for box in ([9.0, 0, 12, 3], [0.0, 9, 3, 12], [-9.0, 0, -5, 3], [9.0, 0, 0, 3], [float('nan'), 0, 3, 3]):
        if box[0] == box[0]:  # of NaN, mmdet makes a region of gigabytes
            with pytest.raises(RuntimeError):
                paste.__wrapped__(masks, torch.tensor([box]), 4, 4)
        found, region = paste(masks, torch.tensor([box]), 4, 4)
        assert torch.zeros(1, 4, 4)[(slice(None), *region)].shape == found.shape == (1, 0, 0)
    found, region = paste(masks, inner, 4, 4)
    expected, same = paste.__wrapped__(masks, inner, 4, 4)
    assert region == same
    torch.testing.assert_close(found, expected)


def test_pasting_without_the_fault_stays():
    module = module_with(_do_paste_mask=lambda *_: None)
    assert not patch_mask_pasting(module)
