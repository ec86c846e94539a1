# Copyright (c) addp_mm contributors. Apache-2.0.
"""Bias, leaky ReLU and a factor, as in StyleGAN2 (https://arxiv.org/abs/1912.04958)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op

_LINEAR, _LEAKY_RELU = 1, 3
_SECOND = 2


@mmcv_op
def fused_bias_leakyrelu(
    input: Tensor, bias: Tensor, refer: Tensor, act: int, grad: int, alpha: float, scale: float
) -> Tensor:
    """Add a bias, apply an activation or its derivative, and scale.

    Args:
        input: (N, C, ...) features, or gradients.
        bias: (C,), or empty for none.
        refer: As ``input``: the output of the activation, if ``grad`` is 1; otherwise empty.
        act: 1 none, 3 leaky ReLU.
        grad: 0 the activation, 1 its derivative times ``input``, 2 the second derivative, which is
            0.
        alpha: Slope of negative values.
        scale: Factor on the result.

    Returns:
        As ``input``.

    Raises:
        ValueError: ``act`` is neither 1 nor 3.
    """
    if act not in (_LINEAR, _LEAKY_RELU):
        raise ValueError(f'fused_bias_leakyrelu: act must be {_LINEAR} or {_LEAKY_RELU}, got {act}')
    if grad == _SECOND:
        return torch.zeros_like(input)
    values = input.to(compute_dtype(input))
    if bias.numel():
        values = values + bias.to(values.dtype).view(-1, *[1] * (input.dim() - 2))
    if act == _LEAKY_RELU:
        rising = (refer if grad else values) > 0
        values = torch.where(rising, values, values * alpha)
    return (values * scale).to(input.dtype)
