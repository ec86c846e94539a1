# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of a deformable convolution."""

from typing import NamedTuple

from torch import Tensor


class Settings(NamedTuple):
    """Stride, padding and dilation of rows and columns; groups of channels, and of offsets."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int

    @classmethod
    def of(cls, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, **_) -> 'Settings':
        """From mmcv's numbers for version 1; size of the kernel and block size are not used."""
        return cls((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)

    @classmethod
    def of_modulated(
        cls, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, **_
    ) -> 'Settings':
        """From mmcv's numbers for version 2; the size of the kernel is not used."""
        return cls((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)

    def output_size(self, input: Tensor, weight: Tensor) -> tuple[int, int]:
        """Height and width of the output, as mmcv computes them."""
        height, width = (
            (input.size(2 + i) + 2 * self.padding[i] - self.dilation[i] * (weight.size(2 + i) - 1) - 1)
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return height, width

    def for_torchvision(self, mask: Tensor | None) -> tuple[int | bool, ...]:
        """The settings in the order of torchvision's kernels."""
        return (*self.stride, *self.padding, *self.dilation, self.groups, self.deform_groups, mask is not None)
