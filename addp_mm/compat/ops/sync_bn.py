# Copyright (c) addp_mm contributors. Apache-2.0.
"""Synchronised batch normalisation on one rank (``MMSyncBN``); mmcv communicates."""

from torch import Tensor

from .common import mmcv_op


@mmcv_op
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Fill ``mean`` (C,) float32 with the means of ``input`` (N, C, S)."""
    mean.copy_(input.float().mean((0, 2)))


@mmcv_op
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Fill ``var`` (C,) float32 with the variances of ``input`` (N, C, S) around ``mean`` (C,)."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


@mmcv_op
def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Normalise the input, and update the running statistics.

    Args:
        input: (N, C, S).
        mean: (C,) float32 means over all ranks.
        var: (C,) float32 variances over all ranks.
        weight: (C,) factors.
        bias: (C,) summands.
        running_mean: (C,); updated in place.
        running_var: (C,); updated in place.
        norm: (N, C, S) float32; filled with the normalised input.
        std: (C,) float32; filled with the standard deviations.
        output: (N, C, S); filled in place.
        eps: Added to the variances.
        momentum: Weight of this batch in the running statistics.
        group_size: Number of ranks, for the unbiased running variance.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.size(0) * input.size(2) * group_size
    unbiased = var * count / (count - 1) if count > 1 else var
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


@mmcv_op
def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Fill ``grad_weight`` and ``grad_bias`` (C,) from ``grad_output`` and ``norm`` (N, C, S)."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


@mmcv_op
def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Fill ``grad_input`` (N, C, S) with the derivative with respect to the input."""
    count = norm.size(0) * norm.size(2)
    through_statistics = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_(weight[:, None] * (grad_output.float() - through_statistics) / std[:, None])
