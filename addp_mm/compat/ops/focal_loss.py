# Copyright (c) addp_mm contributors. Apache-2.0.
"""Focal loss (Lin et al., https://arxiv.org/abs/1708.02002) of logits and probabilities."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op

_TINY = torch.finfo(torch.float32).tiny


@mmcv_op
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each logit.

    Args:
        input: (N, C) logits.
        target: (N,) int64 classes; C (or any other number outside [0, C)) is background.
        weight: (C,) weights of the classes, or empty. Background has weight 1 (mmcv reads beyond
            the end of the tensor).
        output: (N, C); filled in place.
        gamma: Focusing exponent.
        alpha: Weight of positives; negatives have ``1 - alpha``.
    """
    p, positive = _probabilities(input, target)
    loss = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * p.clamp(min=_TINY).log(),
        -(1 - alpha) * p**gamma * (1 - p).clamp(min=_TINY).log(),
    )
    output.copy_(loss * _row_weight(weight, target, input))


@mmcv_op
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of :func:`sigmoid_focal_loss_forward`."""
    p, positive = _probabilities(input, target)
    on_positive = (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=_TINY).log())
    on_negative = p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=_TINY).log() - p)
    grad = torch.where(positive, -alpha * on_positive, -(1 - alpha) * on_negative)
    grad_input.copy_(grad * _row_weight(weight, target, input))


@mmcv_op
def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each row.

    Args:
        softmax: (N, C) probabilities.
        target: (N,) int64 classes; negative ones have no loss.
        weight: (C,) class weights, or empty.
        output: (N,); filled in place.
        gamma: Focusing exponent.
        alpha: Factor on the loss.
    """
    p, known = _target_probability(softmax, target)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=_TINY).log()
    output.copy_(torch.where(known, loss, 0) * _class_weight(weight, target, known))


@mmcv_op
def softmax_focal_loss_backward(
    softmax: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of the loss, ``buff`` with row factors."""
    p, known = _target_probability(softmax, target)
    factor = alpha * (-((1 - p) ** gamma) + gamma * (1 - p) ** (gamma - 1) * p * p.clamp(min=_TINY).log())
    factor = torch.where(known, factor, 0) * _class_weight(weight, target, known)
    buff.copy_(factor)
    p_all = softmax.to(p.dtype)
    grad = p_all * -factor[:, None]
    grad.scatter_(1, target.clamp(min=0)[:, None], (factor * (1 - p))[:, None])
    grad_input.copy_(grad)


def _probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) probabilities, and (N, C) bool: whether the column is the class of the row."""
    classes = torch.arange(logits.size(1), device=logits.device)
    return logits.to(compute_dtype(logits)).sigmoid(), target[:, None] == classes


def _row_weight(weight: Tensor, target: Tensor, logits: Tensor) -> Tensor:
    if weight.numel() == 0:
        return torch.ones((), dtype=compute_dtype(logits), device=logits.device)
    known = (target >= 0) & (target < len(weight))
    return _class_weight(weight, target, known)[:, None]


def _class_weight(weight: Tensor, target: Tensor, known: Tensor) -> Tensor:
    if weight.numel() == 0:
        return torch.ones((), dtype=compute_dtype(weight), device=weight.device)
    return torch.where(known, weight.to(compute_dtype(weight))[torch.where(known, target, 0)], 1)


def _target_probability(softmax: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) probability of the target (1 without a target), and (N,) bool, True with a target."""
    known = target >= 0
    p = softmax.to(compute_dtype(softmax)).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(known, p, 1), known
