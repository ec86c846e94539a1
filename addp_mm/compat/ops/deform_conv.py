# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable convolution, versions 1 (https://arxiv.org/abs/1703.06211) and 2 (https://arxiv.org/abs/1811.11168)."""

import torch
import torchvision.ops  # noqa: F401  registers the kernels under torch.ops.torchvision
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op


@mmcv_op
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve at places moved by ``offset``.

    Args:
        input (Tensor): (N, C, H, W).
        weight (Tensor): (D, C / group, kH, kW).
        offset (Tensor): (N, deformable_group * kH * kW * 2, Ho, Wo): row and column in pixels for
            each kernel place.
        output (Tensor): (N, D, Ho, Wo); filled in place.
        columns, ones (Tensor): mmcv's buffers; not used. Nor is ``im2col_step``.
    """
    if input.numel():
        output.copy_(
            _forward(
                input,
                weight,
                None,
                offset,
                None,
                (dH, dW),
                (padH, padW),
                (dilationH, dilationW),
                group,
                deformable_group,
            )
        )


@mmcv_op
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradients of :func:`deform_conv_forward` to ``gradInput`` and ``gradOffset``."""
    if input.numel():
        grads = _backward(
            gradOutput,
            input,
            weight,
            None,
            offset,
            None,
            (dH, dW),
            (padH, padW),
            (dilationH, dilationW),
            group,
            deformable_group,
        )
        gradInput += grads[0]
        gradOffset += grads[2]


@mmcv_op
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` to ``gradWeight``."""
    if input.numel():
        grads = _backward(
            gradOutput,
            input,
            gradWeight,
            None,
            offset,
            None,
            (dH, dW),
            (padH, padW),
            (dilationH, dilationW),
            group,
            deformable_group,
        )
        gradWeight += scale * grads[1]


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
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve at moved places, each weighted by ``mask`` (N, deformable_group * kernel_h * kernel_w, Ho, Wo).

    Other arguments as in :func:`deform_conv_forward`; ``bias`` (D,) counts if ``with_bias``.
    """
    if input.numel():
        output.copy_(
            _forward(
                input,
                weight,
                bias if with_bias else None,
                offset,
                mask,
                (stride_h, stride_w),
                (pad_h, pad_w),
                (dilation_h, dilation_w),
                group,
                deformable_group,
            )
        )


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
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward` to the five ``grad_`` tensors."""
    if input.numel() == 0:
        return
    grads = _backward(
        grad_output,
        input,
        weight,
        bias if with_bias else None,
        offset,
        mask,
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
        group,
        deformable_group,
    )
    for total, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads[:4], strict=True):
        total += grad
    if with_bias:
        grad_bias += grads[4]


def _arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor, mask: Tensor | None
) -> tuple[Tensor, ...]:
    """Cast to the dtype of the computation, and make the tensors that torchvision wants in place of None."""
    dtype = compute_dtype(input)
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    mask = input.new_zeros(input.size(0), 1) if mask is None else mask
    return tuple(t.to(dtype) for t in (input, weight, offset, mask, bias))


def _forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    return torch.ops.torchvision.deform_conv2d(
        *_arguments(input, weight, bias, offset, mask),
        *stride,
        *padding,
        *dilation,
        groups,
        deform_groups,
        mask is not None,
    )


def _backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> tuple[Tensor, ...]:
    """Gradients by input, weight, offset, mask and bias."""
    arguments = _arguments(input, weight, bias, offset, mask)
    with allow_atomics():
        grads = torch.ops.torchvision._deform_conv2d_backward(
            grad.to(arguments[0].dtype),
            *arguments,
            *stride,
            *padding,
            *dilation,
            groups,
            deform_groups,
            mask is not None,
        )
    outside = _outside(arguments[2], input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return grads[0], grads[1], grads[2].masked_fill(outside, 0), grads[3], grads[4]


def _outside(
    offset: Tensor,
    size: torch.Size,
    kernel: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Tell which places lie a whole pixel outside, where mmcv has no gradient by the offset.

    torchvision has one for places at exactly -1. That is not rare: zero-initialised offsets and a
    padding of 1 put the whole first row and column there.

    Returns:
        Tensor: Bool, of the shape of ``offset``.
    """
    batch, _, height, width = offset.shape
    offset = offset.view(batch, -1, *kernel, 2, height, width)
    outside = torch.zeros_like(offset[:, :, :, :, 0], dtype=torch.bool)
    for axis in (0, 1):
        steps = torch.arange(offset.size(5 + axis), dtype=offset.dtype, device=offset.device)
        taps = torch.arange(kernel[axis], dtype=offset.dtype, device=offset.device)
        start = (steps * stride[axis] - padding[axis]).view((-1, 1) if axis == 0 else (1, -1))
        place = start + (taps * dilation[axis]).view((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
        place = place + offset[:, :, :, :, axis]
        outside |= (place <= -1) | (place >= size[axis])
    return outside[:, :, :, :, None].expand_as(offset).reshape(batch, -1, height, width)
