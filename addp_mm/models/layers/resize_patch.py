# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resize patch embeddings to another patch size."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_patch_projection(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the projection of a patch embedding so that resized patches give the same tokens.

    This is FlexiViT's PI-resize (arXiv 2212.08013, section 3.4). Let B be the matrix that resizes a
    patch bilinearly. The new weight is the pseudo-inverse of B's transpose times the old weight.
    For a larger patch the tokens are exactly the same. For a smaller one they are the best fit in
    the least squares sense.

    Args:
        weight: (C, in_channels, h, w), the kernel of a convolution whose stride is its size.
        size: (h', w') in pixels.

    Returns:
        (C, in_channels, h', w'), in the weight's dtype.
    """
    old = tuple(weight.shape[2:])
    if old == tuple(size):
        return weight
    basis = torch.eye(old[0] * old[1], dtype=torch.float64, device=weight.device).unflatten(1, old)[:, None]
    resize = F.interpolate(basis, size=tuple(size), mode='bilinear', align_corners=False, antialias=True)
    # Row i of `resize` is the i-th pixel after resizing: B transposed.
    resized = weight.double().flatten(2) @ torch.linalg.pinv(resize.flatten(1)).t()
    return resized.unflatten(2, tuple(size)).to(weight.dtype)
