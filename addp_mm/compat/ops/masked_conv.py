# Copyright (c) addp_mm contributors. Apache-2.0.
"""Columns of a convolution that is computed only where a mask is set."""

import torch.nn.functional as F
from torch import Tensor

from .common import mmcv_op


@mmcv_op
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Gather the window of each marked place.

    Args:
        im (Tensor): (1, C, H, W).
        mask_h_idx (Tensor): (M,) int64 rows of the marked places.
        mask_w_idx (Tensor): (M,) int64 columns.
        col (Tensor): (C * kernel_h * kernel_w, M); filled in place.
        pad_h (int): Rows of zeros above and below; ``pad_w`` columns left and right.
    """
    # marked places may lie outside the valid convolution: they see zeros, however small the padding
    # is
    padded = F.pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    rows = [padded[:, mask_h_idx + i, mask_w_idx + j] for i in range(kernel_h) for j in range(kernel_w)]
    for place, row in enumerate(rows):
        col[place :: len(rows)] = row


@mmcv_op
def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the results (C, M) to the marked places of ``im`` (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
