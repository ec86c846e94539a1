# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convolution that is computed only at the positions of a mask."""

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
    """Gather the window of each marked position.

    Args:
        im: (1, C, H, W).
        mask_h_idx: (M,) int64 rows of the marked positions.
        mask_w_idx: (M,) int64 columns.
        col: (C * kernel_h * kernel_w, M); filled in place.
        kernel_h: Rows of the window.
        kernel_w: Columns of the window.
        pad_h: Rows of zeros above and below.
        pad_w: Columns of zeros left and right.
    """
    # windows of marked positions may exceed the padding; the values there are zeros
    padded = F.pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    rows = [padded[:, mask_h_idx + i, mask_w_idx + j] for i in range(kernel_h) for j in range(kernel_w)]
    for k, row in enumerate(rows):
        col[k :: len(rows)] = row


@mmcv_op
def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the results (C, M) to the marked positions of ``im`` (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
