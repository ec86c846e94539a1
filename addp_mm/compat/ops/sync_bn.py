# Copyright (c) addp_mm contributors. Apache-2.0.
"""The local parts of mmcv's synchronised batch normalisation (``MMSyncBN``); mmcv itself talks to the other ranks."""

from torch import Tensor

from .common import mmcv_op


@mmcv_op
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Fill ``mean`` (C,) float32 with the means of ``input`` (N, C, S)."""
    mean.copy_(input.float().mean((0, 2)))


@mmcv_op
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Fill ``var`` (C,) float32 with the mean squared distance of ``input`` (N, C, S) to ``mean`` (C,)."""
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
    """Normalise ``input`` (N, C, S) into ``output``, and move the running statistics.

    Args:
        norm (Tensor): (N, C, S) float32; filled with the normalised input.
        std (Tensor): (C,) float32; filled with the standard deviations.
        group_size (int): Number of ranks, for the unbiased running variance.
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
    """Fill ``grad_input`` (N, C, S)."""
    count = norm.size(0) * norm.size(2)
    through_statistics = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_(weight[:, None] * (grad_output.float() - through_statistics) / std[:, None])
