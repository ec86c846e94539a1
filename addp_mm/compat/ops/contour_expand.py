# Copyright (c) addp_mm contributors. Apache-2.0.
"""Progressive scale expansion of PSENet (Wang et al., https://arxiv.org/abs/1903.12473)."""

import numpy as np
from torch import Tensor

from .common import mmcv_op
from .fallback import computed_on_cpu
from .region_growing import LabelMap


@mmcv_op
@computed_on_cpu
def contour_expand(
    kernel_mask: Tensor, internal_kernel_label: Tensor, min_kernel_area: int, kernel_num: int
) -> list[list[int]]:
    """Grow the smallest kernels over the largest ones.

    The paper grows them over one size after the other. The compiled operator reads the largest
    kernels in each step, so that all other sizes change nothing; so does this function.

    Args:
        kernel_mask: (K, H, W): not 0 for pixels of kernels, the largest kernels first. With K = 1,
            nothing grows.
        internal_kernel_label: (H, W) integers: labels of the smallest kernels; 0 for none.
        min_kernel_area: Kernels with fewer pixels are left out.
        kernel_num: Number of labels, 0 included. Not needed.

    Returns:
        Labels (H, W), as lists.
    """
    labels = internal_kernel_label.numpy()
    labels = np.where(labels > 0, labels, 0)
    areas = np.bincount(labels.ravel(), minlength=1)
    grown = LabelMap(np.where(areas[labels] >= min_kernel_area, labels, 0))
    if len(kernel_mask) > 1:
        largest = grown.padded(kernel_mask[0].numpy() != 0)
        grown.grow(np.flatnonzero(grown.flat > 0), largest, columns_first=False)
    return grown.values().tolist()
