# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls of convolutions, attention, and losses."""

import torch

from helpers.operator_cases.inputs import OperatorCase

_GROUPS = dict(group=2, deformable_group=2)
_ONE = dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1, im2col_step=2, **_GROUPS)
_TWO = dict(kernel_h=3, kernel_w=3, stride_h=1, stride_w=1, pad_h=1, pad_w=1, dilation_h=1, dilation_w=1, **_GROUPS)


def deform_conv(make):
    maps, weight, offsets = make.maps(), make.randn(6, 2, 3, 3), make.randn(2, 36, 20, 24)
    offsets[0] = 0
    none, grad = make.zeros(0), make.randn(2, 6, 20, 24)
    args = (maps, weight, offsets, make.zeros(2, 6, 20, 24), none, none)
    yield OperatorCase('deform_conv_forward', args, (3,), _ONE)
    grads = make.zeros(2, 4, 20, 24), make.zeros(2, 36, 20, 24)
    args = (maps, offsets, grad.clone(), *grads, weight, none)
    yield OperatorCase('deform_conv_backward_input', args, (3, 4), _ONE)
    args = (maps, offsets, grad.clone(), make.zeros(6, 2, 3, 3), none, none)
    yield OperatorCase('deform_conv_backward_parameters', args, (3,), dict(_ONE, scale=1.0))


def modulated_deform_conv(make):
    maps, weight, bias = make.maps(), make.randn(6, 2, 3, 3), make.randn(6)
    offsets, mask, none = make.randn(2, 36, 20, 24), make.randn(2, 18, 20, 24), make.zeros(0)
    args = (maps, weight, bias, none, offsets, mask, make.zeros(2, 6, 20, 24), none)
    yield OperatorCase('modulated_deform_conv_forward', args, (6,), dict(_TWO, with_bias=True))
    grads = [torch.zeros_like(one) for one in (maps, weight, bias, offsets, mask)]
    args = (maps, weight, bias, none, offsets, mask, none, *grads, make.randn(2, 6, 20, 24))
    yield OperatorCase('modulated_deform_conv_backward', args, (7, 8, 9, 10, 11), dict(_TWO, with_bias=True))


def psa_mask(make):
    numbers = (2, 4, 6, 5, 7, 2, 3)
    for kind in (0, 1):
        args = (make.randn(2, 35, 4, 6), make.zeros(2, 24, 4, 6), kind, *numbers)
        yield OperatorCase('psamask_forward', args, (1,))
        args = (make.randn(2, 24, 4, 6), make.zeros(2, 35, 4, 6), kind, *numbers)
        yield OperatorCase('psamask_backward', args, (1,))


def active_rotated_filter(make):
    moved = torch.stack([torch.randperm(18, generator=make.generator) for _ in range(4)], -1) + 1
    moved = moved.view(2, 3, 3, 4).int().to(make.device)
    args = (make.randn(2, 3, 2, 3, 3), moved, make.zeros(8, 6, 3, 3))
    yield OperatorCase('active_rotated_filter_forward', args, (2,))
    args = (make.randn(8, 6, 3, 3), moved, make.zeros(2, 3, 2, 3, 3))
    yield OperatorCase('active_rotated_filter_backward', args, (2,))


def ms_deform_attn(make):
    shapes, starts = torch.tensor([[6, 8], [3, 4]]).to(make.device), torch.tensor([0, 48]).to(make.device)
    value, weights = make.randn(2, 60, 2, 8), make.randn(2, 7, 2, 2, 4).softmax(-1)
    locations = make.rand(2, 7, 2, 2, 4, 2)
    yield OperatorCase('ms_deform_attn_forward', (value, shapes, starts, locations, weights, 2))
    grads = [torch.zeros_like(one) for one in (value, locations, weights)]
    args = (value, shapes, starts, locations, weights, make.randn(2, 7, 16), *grads, 2)
    yield OperatorCase('ms_deform_attn_backward', args, (6, 7, 8))


def carafe(make):
    maps, masks = make.maps(), make.randn(2, 25, 40, 48)
    yield OperatorCase('carafe_naive_forward', (maps, masks, make.zeros(2, 4, 40, 48), 5, 1, 2), (2,))
    grads = torch.zeros_like(maps), torch.zeros_like(masks)
    args = (make.randn(2, 4, 40, 48), maps, masks, *grads, 5, 1, 2)
    yield OperatorCase('carafe_naive_backward', args, (3, 4))


def masked_conv(make):
    rows, columns = torch.tensor([0, 3, 19]).to(make.device), torch.tensor([0, 5, 23]).to(make.device)
    args = (make.maps()[:1], rows, columns, make.zeros(36, 3), 3, 3, 1, 1)
    yield OperatorCase('masked_im2col_forward', args, (3,))
    args = (make.randn(4, 3), rows, columns, make.zeros(1, 4, 20, 24), 20, 24, 4)
    yield OperatorCase('masked_col2im_forward', args, (3,))


def correlation(make):
    one, other, numbers = make.maps(), make.maps(), (1, 1, 5, 5, 0, 0, 1, 1, 2, 2, 1, 1)
    yield OperatorCase('correlation_forward', (one, other, make.zeros(2, 5, 5, 20, 24), *numbers), (2,))
    grads = torch.zeros_like(one), torch.zeros_like(other)
    args = (make.randn(2, 5, 5, 20, 24), one, other, *grads, *numbers)
    yield OperatorCase('correlation_backward', args, (3, 4))


def tin_shift(make):
    clips, shift = make.randn(2, 5, 8, 6), make.whole(5, 2, 4, dtype=torch.int) - 2
    yield OperatorCase('tin_shift_forward', (clips, shift, torch.zeros_like(clips)), (2,))
    yield OperatorCase('tin_shift_backward', (clips, shift, torch.zeros_like(clips)), (2,))


def upfirdn2d(make):
    args = (make.maps(), make.randn(3, 4), 2, 1, 1, 2, 2, 1, 0, 3, False, 1.5)
    yield OperatorCase('upfirdn2d', args)


def bias_act(make):
    """Each activation and its derivatives."""
    maps, bias, none = make.maps(), make.randn(4), make.zeros(0)
    yield OperatorCase('fused_bias_leakyrelu', (maps, bias, none, 3, 0, 0.2, 1.5))
    yield OperatorCase('fused_bias_leakyrelu', (make.maps(), none, maps, 3, 1, 0.2, 1.5))
    for act in range(1, 10):
        for clamp in (-1.0, 1.0):
            numbers = (1, act, 0.2, 1.5, clamp)
            yield OperatorCase('bias_act', (maps, bias, none, none, none, 0, *numbers))
            result = make.ext.bias_act(maps, bias, none, none, none, 0, *numbers)
            # mmcv's autograd function keeps no more than that
            kept = (maps if act > 3 else none, none if act in (1, 9) else result)
            yield OperatorCase('bias_act', (make.maps(), bias if act > 3 else none, *kept, none, 1, *numbers))
            if act > 3:
                yield OperatorCase('bias_act', (make.maps(), bias, *kept, make.maps(), 2, *numbers))


def focal_loss(make):
    target, none, logits = make.whole(5, 50), make.zeros(0), make.randn(50, 5)
    for name in ('forward', 'backward'):
        args = (logits, target, none, make.zeros(50, 5), 2.0, 0.25)
        yield OperatorCase(f'sigmoid_focal_loss_{name}', args, (3,))
    chances = logits.softmax(1)
    yield OperatorCase('softmax_focal_loss_forward', (chances, target, none, make.zeros(50), 2.0, 0.25), (3,))
    args = (chances, target, none, make.zeros(50), make.zeros(50, 5), 2.0, 0.25)
    yield OperatorCase('softmax_focal_loss_backward', args, (3, 4))


GROUPS = (
    deform_conv,
    modulated_deform_conv,
    psa_mask,
    active_rotated_filter,
    ms_deform_attn,
    carafe,
    masked_conv,
    correlation,
    tin_shift,
    upfirdn2d,
    bias_act,
    focal_loss,
)
