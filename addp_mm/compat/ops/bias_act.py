# Copyright (c) addp_mm contributors. Apache-2.0.
"""Bias, activation, factor and clamp, as in StyleGAN2-ADA (https://arxiv.org/abs/2006.06676)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import compute_dtype, mmcv_op

_LINEAR, _RELU, _LEAKY_RELU = 1, 2, 3
# mmcv's numbers; those above _LEAKY_RELU have a second derivative
_ACTIVATIONS: dict[int, Callable[[Tensor, float], Tensor]] = {
    _LINEAR: lambda x, alpha: x,
    _RELU: lambda x, alpha: F.relu(x),
    _LEAKY_RELU: F.leaky_relu,
    4: lambda x, alpha: x.tanh(),
    5: lambda x, alpha: x.sigmoid(),
    6: lambda x, alpha: F.elu(x),
    7: lambda x, alpha: F.selu(x),
    8: lambda x, alpha: F.softplus(x),
    9: lambda x, alpha: F.silu(x),
}


@mmcv_op
def bias_act(
    input: Tensor,
    bias: Tensor,
    xref: Tensor,
    yref: Tensor,
    dy: Tensor,
    grad: int,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """Add a bias, apply an activation, multiply and clamp; or differentiate that once or twice.

    Args:
        input: Any shape: the values if ``grad`` is 0, the gradient of the result if it is 1, the
            gradient of that gradient if it is 2.
        bias: (C,) along ``dim``, or empty for none.
        xref: The values, if ``grad`` is not 0; empty for linear functions and for ReLUs.
        yref: The result, if ``grad`` is not 0; empty for linear functions and for SiLU.
        dy: The gradient of the result, if ``grad`` is 2.
        grad: 0, 1 or 2.
        dim: Dimension of the bias.
        act: 1 linear, 2 ReLU, 3 leaky ReLU, 4 tanh, 5 sigmoid, 6 ELU, 7 SELU, 8 softplus, 9 SiLU.
        alpha: Slope of negative values of a leaky ReLU.
        gain: Factor after the activation.
        clamp: Largest size of the result; negative for none. The gradient of a clamped linear
            function, for which mmcv keeps neither values nor results, is that without a clamp.

    Returns:
        As ``input``.
    """
    dtype = compute_dtype(input)
    values = input.to(dtype)
    added = bias.to(dtype).view([-1 if axis == dim else 1 for axis in range(input.dim())]) if bias.numel() else 0.0
    if grad == 0:
        result = _ACTIVATIONS[act](values + added, alpha) * gain
        return (result.clamp(-clamp, clamp) if clamp >= 0 else result).to(input.dtype)
    if not yref.numel() and xref.numel():  # mmcv keeps no result of SiLU
        yref = _ACTIVATIONS[act](xref.to(dtype) + added, alpha) * gain
    if clamp >= 0 and yref.numel():
        values = values * (yref.abs() < clamp)
    if act <= _LEAKY_RELU:
        return _by_slope(values, yref, grad, act, alpha, gain).to(input.dtype)
    before = (xref.to(dtype) + added).detach().requires_grad_()
    with torch.enable_grad():
        result = _ACTIVATIONS[act](before, alpha) * gain
        if grad == 1:
            return torch.autograd.grad(result, before, values)[0].to(input.dtype)
        slope = torch.autograd.grad(result, before, torch.ones_like(result), create_graph=True)[0]
        return torch.autograd.grad(slope, before, values * dy.to(dtype))[0].to(input.dtype)


def _by_slope(values: Tensor, result: Tensor, grad: int, act: int, alpha: float, gain: float) -> Tensor:
    """Derivatives of functions of one or two straight lines."""
    if grad == 2:
        return torch.zeros_like(values)
    if act == _LINEAR:
        return values * gain
    return torch.where(result > 0, values, values * (alpha if act == _LEAKY_RELU else 0)) * gain
