# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable convolution on the CPU: sampled windows as rows, and matrix products.

torchvision's CPU kernel uses one core and reads one channel after the other.
"""

import torch
from torch import Tensor

from .deform_settings import Settings
from .weighted_rows import (
    gradient_of_rows,
    gradient_of_weights,
    images_of,
    pixel_rows,
    weighted_sums,
    zero_padded_corners,
)


class DeformConvOnCPU:
    """A deformable convolution of one input.

    Args:
        input: (N, C, H, W).
        weight: (D, C / groups, kH, kW).
        offset: (N, deform_groups * kH * kW * 2, Ho, Wo), finite.
        mask: (N, deform_groups * kH * kW, Ho, Wo), or None.
        settings: Stride, padding, dilation and groups.
    """

    def __init__(self, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, settings: Settings) -> None:
        self.settings, self.shape, self.size, self.weight = settings, input.shape, offset.shape[2:], weight
        self.leaves = [leaf.detach().requires_grad_() for leaf in (offset, mask) if leaf is not None]
        self.rows = pixel_rows(input, settings.deform_groups)
        with torch.enable_grad():
            self.index, self.corners = self._samples()

    def output(self) -> Tensor:
        """(N, D, Ho, Wo), without bias."""
        return (self._matrices() @ self._columns().transpose(2, 3)).reshape(self.shape[0], -1, *self.size)

    def input_gradients(self, grad: Tensor) -> list[Tensor]:
        """Gradients of input, offset and mask, if there is one, for the gradient of the output."""
        columns = self._by_group(grad).transpose(2, 3) @ self._matrices()
        columns = columns.unflatten(3, (-1, self.weight.size(1))).permute(0, 2, 3, 1, 4)
        columns = columns.reshape(-1, self.rows.size(1))
        by_rows = gradient_of_rows(columns, self.index, self.corners.detach(), len(self.rows))
        by_corners = gradient_of_weights(columns, self.rows, self.index)
        return [images_of(by_rows, self.shape), *torch.autograd.grad(self.corners, self.leaves, by_corners)]

    def weight_gradient(self, grad: Tensor) -> Tensor:
        """Gradient of the weight, for that of the output."""
        matrices = (self._by_group(grad) @ self._columns()).sum(0)
        return matrices.reshape(len(self.weight), -1, self.weight.size(1)).transpose(1, 2).reshape(self.weight.shape)

    def _by_group(self, grad: Tensor) -> Tensor:
        """(N, D, Ho, Wo) -> (N, groups, D / groups, Ho * Wo)."""
        return grad.reshape(self.shape[0], self.settings.groups, -1, self.size.numel())

    def _matrices(self) -> Tensor:
        """The weight as (groups, D / groups, kH * kW * C / groups)."""
        return self.weight.flatten(2).transpose(1, 2).reshape(self.settings.groups, -1, self.weight[0].numel())

    def _columns(self) -> Tensor:
        """The sampled values (N, groups, Ho * Wo, kH * kW * C / groups)."""
        sums = weighted_sums(self.rows, self.index, self.corners.detach())
        sums = sums.view(self.shape[0], self.size.numel(), -1, self.settings.groups, self.weight.size(1))
        return sums.permute(0, 3, 1, 2, 4).flatten(3)

    def _samples(self) -> tuple[Tensor, Tensor]:
        """(N * Ho * Wo * kH * kW * deform_groups, 4) rows of the input, and their weights."""
        batch, _, height, width = self.shape
        groups, offset = self.settings.deform_groups, self.leaves[0]
        moved = offset.reshape(batch, groups, *self.weight.shape[2:], 2, *self.size)
        y, x = (moved.select(4, axis) + self._centre(axis) for axis in (0, 1))
        index, weight = zero_padded_corners(y, x, height, width)
        if len(self.leaves) > 1:
            weight = weight * self.leaves[1].reshape(*y.shape, 1)
        image = torch.arange(batch, dtype=index.dtype, device=index.device).view(-1, 1, 1, 1, 1, 1, 1)
        group = torch.arange(groups, dtype=index.dtype, device=index.device).view(-1, 1, 1, 1, 1, 1)
        index = (index + image * (height * width)) * groups + group
        # (N, groups, kH, kW, Ho, Wo, 4) -> (N, Ho, Wo, kH, kW, groups, 4)
        index, weight = (tensor.permute(0, 4, 5, 2, 3, 1, 6).reshape(-1, 4) for tensor in (index, weight))
        return index, weight

    def _centre(self, axis: int) -> Tensor:
        """Positions without offsets on an axis, to be added to (N, groups, kH, kW, Ho, Wo)."""
        settings, like = self.settings, self.leaves[0]
        step = torch.arange(self.size[axis], dtype=like.dtype, device=like.device) * settings.stride[axis]
        tap = torch.arange(self.weight.size(2 + axis), dtype=like.dtype, device=like.device) * settings.dilation[axis]
        centre = tap[:, None] + step - settings.padding[axis]
        return centre[:, None, :, None] if axis == 0 else centre[:, None, :]
