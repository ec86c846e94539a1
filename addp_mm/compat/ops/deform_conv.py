# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable convolution, versions 1 (arXiv 1703.06211) and 2 (arXiv 1811.11168)."""

from typing import NamedTuple

import torch
import torchvision.ops  # noqa: F401  registers the kernels under torch.ops.torchvision
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op

_FAR = 1e6  # pixels, outside of every map


@mmcv_op
def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **numbers
) -> None:
    """Convolve at positions shifted by ``offset``.

    Args:
        input: (N, C, H, W).
        weight: (D, C / group, kH, kW).
        offset: (N, deformable_group * kH * kW * 2, Ho, Wo): row and column in pixels for each
            kernel position.
        output: (N, D, Ho, Wo); filled in place.
        columns: Buffer of mmcv, not used.
        ones: Buffer of mmcv, not used.
        **numbers: Kernel, strides and groups; see :meth:`_Settings.of`.
    """
    if input.numel():
        output.copy_(_forward(input, weight, None, offset, None, _Settings.of(**numbers)))


@mmcv_op
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **numbers,
) -> None:
    """Add the gradients of :func:`deform_conv_forward` to ``gradInput`` and ``gradOffset``."""
    if input.numel():
        grads = _backward(gradOutput, input, weight, None, offset, None, _Settings.of(**numbers))
        gradInput.add_(grads[0])
        gradOffset.add_(grads[2])


@mmcv_op
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **numbers,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` to ``gradWeight``."""
    if input.numel():
        grads = _backward(gradOutput, input, gradWeight, None, offset, None, _Settings.of(**numbers))
        gradWeight.add_(scale * grads[1])


@mmcv_op
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **numbers,
) -> None:
    """Convolve at shifted positions, each weighted by ``mask``.

    ``mask`` is (N, deformable_group * kernel_h * kernel_w, Ho, Wo). ``bias`` (D,) is used if
    ``with_bias``. All others are as in :func:`deform_conv_forward`; for the numbers see
    :meth:`_Settings.of_modulated`. ``offset`` and ``mask`` may be larger than Ho and Wo, see
    :func:`_first_numbers`; mmdet's DyHead needs it.
    """
    if input.numel():
        settings = _Settings.of_modulated(**numbers)
        size = settings.output_size(input, weight)
        offset, mask = _first_numbers(offset, size), _first_numbers(mask, size)
        output.copy_(_forward(input, weight, bias if with_bias else None, offset, mask, settings))


@mmcv_op
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **numbers,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward` to the five ``grad_`` tensors."""
    if input.numel() == 0:
        return
    settings = _Settings.of_modulated(**numbers)
    size = settings.output_size(input, weight)
    inner = _first_numbers(offset, size), _first_numbers(mask, size)
    grads = _backward(grad_output, input, weight, bias if with_bias else None, *inner, settings)
    grad_input += grads[0]
    grad_weight += grads[1]
    grad_offset += _in_place_of_first_numbers(grads[2], grad_offset)
    grad_mask += _in_place_of_first_numbers(grads[3], grad_mask)
    if with_bias:
        grad_bias += grads[4]


class _Settings(NamedTuple):
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int

    @classmethod
    def of(cls, dW, dH, padW, padH, dilationW, dilationH, group, deformable_group, **_) -> '_Settings':
        """From mmcv's numbers for version 1; size of the kernel and block size are not used."""
        return cls((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)

    @classmethod
    def of_modulated(
        cls, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group, **_
    ) -> '_Settings':
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


def _first_numbers(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The offsets or masks that mmcv's kernel reads, if they are larger than the output.

    It takes the first numbers of each image, as if they were maps of the output's size.

    Args:
        maps: (N, K, H, W).
        size: Height and width of the output, at most H * W pixels.

    Returns:
        (N, K, *size).
    """
    if maps.shape[2:] == size:
        return maps
    batch, channels, height, width = maps.shape
    if height * width < size[0] * size[1]:
        raise ValueError(
            f'ModulatedDeformConv2d: offsets or masks of {height} x {width} pixels are fewer than the '
            f'{size[0]} x {size[1]} pixels of the output.'
        )
    return maps.flatten(1)[:, : channels * size[0] * size[1]].reshape(batch, channels, *size)


def _in_place_of_first_numbers(grad: Tensor, maps: Tensor) -> Tensor:
    """The gradient of the whole maps, from that of :func:`_first_numbers`."""
    if grad.shape == maps.shape:
        return grad
    whole = grad.new_zeros(maps.size(0), maps[0].numel())
    whole[:, : grad[0].numel()] = grad.flatten(1)
    return whole.view(maps.shape)


def _arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor, mask: Tensor | None
) -> tuple[Tensor, ...]:
    """Cast to the dtype of the computation, and replace None as torchvision needs it."""
    dtype = compute_dtype(input, weight, offset)
    # mmcv reads zeros at NaN and Inf; torchvision would read any memory
    offset = offset.to(dtype).nan_to_num(nan=_FAR).clamp(-_FAR, _FAR)
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    mask = input.new_zeros(input.size(0), 1) if mask is None else mask
    return tuple(t.to(dtype) for t in (input, weight, offset, mask, bias))


def _forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor, mask: Tensor | None, settings: _Settings
) -> Tensor:
    return torch.ops.torchvision.deform_conv2d(
        *_arguments(input, weight, bias, offset, mask), *settings.for_torchvision(mask)
    )


def _backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    settings: _Settings,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    arguments = _arguments(input, weight, bias, offset, mask)
    with allow_atomics():
        grads = torch.ops.torchvision._deform_conv2d_backward(  # noqa: SLF001  # its only name
            grad.to(arguments[0].dtype), *arguments, *settings.for_torchvision(mask)
        )
    outside = _outside(arguments[2], input.shape[2:], weight.shape[2:], settings)
    return grads[0], grads[1], grads[2].masked_fill(outside, 0), grads[3], grads[4]


def _outside(offset: Tensor, size: torch.Size, kernel: torch.Size, settings: _Settings) -> Tensor:
    """Mark the positions that are a whole pixel outside; there mmcv's offset has no gradient.

    torchvision has a gradient at exactly -1. This case is frequent: with offsets of zero and a
    padding of 1, the whole first row and column are at -1.

    Returns:
        Bool, of the shape of ``offset``.
    """
    batch, _, height, width = offset.shape
    offset = offset.view(batch, -1, *kernel, 2, height, width)
    outside = torch.zeros_like(offset[:, :, :, :, 0], dtype=torch.bool)
    for axis in (0, 1):
        steps = torch.arange(offset.size(5 + axis), dtype=offset.dtype, device=offset.device)
        taps = torch.arange(kernel[axis], dtype=offset.dtype, device=offset.device)
        start = (steps * settings.stride[axis] - settings.padding[axis]).view((-1, 1) if axis == 0 else (1, -1))
        tap = (taps * settings.dilation[axis]).view((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
        position = start + tap + offset[:, :, :, :, axis]
        outside |= (position <= -1) | (position >= size[axis])
    return outside[:, :, :, :, None].expand_as(offset).reshape(batch, -1, height, width)
