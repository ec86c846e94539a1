# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of hue jitter: the fault without it, the right colours with it."""

import numpy as np
import pytest
from helpers.modules import module_with

from addp_mm.compat.colour import patch_adjust_hue
from addp_mm.compat.versions import installed_version


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_hue_is_shifted_backward_as_far_as_forward(backend):
    import mmcv
    from mmcv.image import photometric

    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    faulty = int(np.__version__.split('.')[0]) >= 2 and installed_version('onedl-mmcv') is None
    assert hasattr(photometric.adjust_hue, '__wrapped__') == faulty
    if faulty:
        with pytest.raises(OverflowError):
            photometric.adjust_hue.__wrapped__(image, -0.2, backend)
    turned = mmcv.adjust_hue(image, -0.2, backend=backend)
    assert turned.dtype == np.uint8
    assert turned.shape == image.shape
    # 51 of 255 steps backward on a circle of 256 give the same hue as 205 steps forward, in two
    # shifts
    ahead = image
    for factor in (103 / 255, 102 / 255):
        ahead = mmcv.adjust_hue(ahead, factor, backend=backend)
    assert np.abs(turned.astype(int) - ahead.astype(int)).mean() < 4
    with pytest.raises(ValueError, match='hue_factor'):
        mmcv.adjust_hue(image, -0.7, backend=backend)


def test_pure_red_shifted_backward_by_a_third_is_blue():
    import mmcv

    red_bgr = np.full((1, 1, 3), (0, 0, 255), np.uint8)
    blue = mmcv.adjust_hue(red_bgr, -1 / 3, backend='cv2')[0, 0]
    assert blue[0] > 245
    assert blue[1:].max() < 15


def test_adjust_hue_without_the_fault_stays():

    def adjust_hue(img, hue_factor, backend=None):
        return img

    module = module_with(adjust_hue=adjust_hue)
    assert not patch_adjust_hue(module)
    assert module.adjust_hue is adjust_hue
