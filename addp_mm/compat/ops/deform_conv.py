# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable convolution, versions 1 (arXiv 1703.06211) and 2 (arXiv 1811.11168)."""

import torch
import torchvision.ops  # noqa: F401  registers the kernels under torch.ops.torchvision
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op
from .deform_on_cpu import DeformConvOnCPU
from .deform_settings import Settings

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
        **numbers: Kernel, strides and groups; see :meth:`Settings.of`.
    """
    if input.numel():
        output.copy_(_forward(input, weight, None, offset, None, Settings.of(**numbers)))


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
        by_input, _, by_offset, *_ = _backward(
            gradOutput, input, weight, offset, None, Settings.of(**numbers), of_weight=False
        )
        gradInput.add_(by_input)
        gradOffset.add_(by_offset)


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
        _, by_weight, *_ = _backward(
            gradOutput, input, gradWeight, offset, None, Settings.of(**numbers), of_inputs=False
        )
        gradWeight.add_(scale * by_weight)


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
    :meth:`Settings.of_modulated`. ``offset`` and ``mask`` may be larger than Ho and Wo, see
    :func:`_first_numbers`; mmdet's DyHead needs it.
    """
    if input.numel():
        settings = Settings.of_modulated(**numbers)
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
    settings = Settings.of_modulated(**numbers)
    size = settings.output_size(input, weight)
    inner = _first_numbers(offset, size), _first_numbers(mask, size)
    by_input, by_weight, by_offset, by_mask = _backward(grad_output, input, weight, *inner, settings)
    grad_input += by_input
    grad_weight += by_weight
    grad_offset += _in_place_of_first_numbers(by_offset, grad_offset)
    grad_mask += _in_place_of_first_numbers(by_mask, grad_mask)
    if with_bias:
        grad_bias += grad_output.to(by_weight.dtype).sum((0, 2, 3))


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


def _cast(
    input: Tensor, weight: Tensor, offset: Tensor, *others: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Input, weight, offset, mask and bias in the dtype of the computation; offsets are finite."""
    dtype = compute_dtype(input, weight, offset)
    # mmcv reads zeros at NaN and Inf
    offset = offset.to(dtype).nan_to_num(nan=_FAR).clamp(-_FAR, _FAR)
    mask, bias = (None if tensor is None else tensor.to(dtype) for tensor in others)
    return input.to(dtype), weight.to(dtype), offset, mask, bias


def _forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor, mask: Tensor | None, settings: Settings
) -> Tensor:
    input, weight, offset, mask, bias = _cast(input, weight, offset, mask, bias)
    if input.device.type == 'cpu':
        output = DeformConvOnCPU(input, weight, offset, mask, settings).output()
        return output if bias is None else output + bias[:, None, None]
    return torch.ops.torchvision.deform_conv2d(*_for_torchvision(input, weight, offset, mask, bias, settings))


def _backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    settings: Settings,
    of_inputs: bool = True,
    of_weight: bool = True,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset and mask, if there is one; the CPU skips unwanted ones."""
    input, weight, offset, mask, _ = _cast(input, weight, offset, mask, None)
    grad = grad.to(input.dtype)
    if input.device.type == 'cpu':
        convolution, none = DeformConvOnCPU(input, weight, offset, mask, settings), grad.new_empty(0)
        by_weight = convolution.weight_gradient(grad) if of_weight else none
        by_input, *others = convolution.input_gradients(grad) if of_inputs else (none, none, none)
        return by_input, by_weight, *others
    with allow_atomics():
        by_input, by_weight, by_offset, by_mask, _ = torch.ops.torchvision._deform_conv2d_backward(  # noqa: SLF001
            grad, *_for_torchvision(input, weight, offset, mask, None, settings)
        )
    outside = _outside(offset, input.shape[2:], weight.shape[2:], settings)
    return by_input, by_weight, by_offset.masked_fill(outside, 0), by_mask


def _for_torchvision(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, settings: Settings
) -> tuple[Tensor | int | bool, ...]:
    """The arguments of torchvision's kernels, which have no None."""
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    values = input.new_zeros(input.size(0), 1) if mask is None else mask
    return input, weight, offset, values, bias, *settings.for_torchvision(mask)


def _outside(offset: Tensor, size: torch.Size, kernel: torch.Size, settings: Settings) -> Tensor:
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
