# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable convolution and attention."""

import inspect

import torch
import torchvision
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

from addp_mm.benchmark.operators.measured import Inputs, differentiated, measured


def _inputs(make: Inputs):
    maps = make.maps(16, make.size(256))
    batch, channels, height, width = maps.shape
    weight = make.rand(channels, channels, 3, 3, grad=True)
    offset = (4 * make.rand(batch, 18, height, width) - 2).requires_grad_()
    return maps, offset, make.rand(batch, 9, height, width, grad=True), weight


@measured('torchvision')
def deform_conv(make: Inputs):
    """3 x 3, 256 to 256 channels, on 2 maps of 50 x 84, forward and backward."""
    maps, offset, _, weight = _inputs(make)
    own = differentiated(lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1), maps, offset, weight)
    plain = differentiated(lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, padding=1), maps, offset, weight)
    return own, plain


@measured('torchvision')
def modulated_deform_conv(make: Inputs):
    """3 x 3, 256 to 256 channels, on 2 maps of 50 x 84, forward and backward, with a mask."""
    inputs = _inputs(make)
    own = differentiated(lambda x, o, m, w: ops.modulated_deform_conv2d(x, o, m, w, None, 1, 1), *inputs)
    plain = differentiated(lambda x, o, m, w: torchvision.ops.deform_conv2d(x, o, w, padding=1, mask=m), *inputs)
    return own, plain


@measured('mmcv in plain PyTorch')
def ms_deform_attn(make: Inputs):
    """Encoder of Deformable DETR, an image of 640 x 640, forward and backward."""
    sides = [make.size(80 // 2**level) for level in range(4)]
    shapes = torch.tensor([[side, side] for side in sides], device=make.device)
    areas = shapes.prod(1)
    starts = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
    queries = int(areas.sum())
    value = make.rand(1, queries, 8, 32, grad=True)
    locations = make.rand(1, queries, 8, 4, 4, 2, grad=True)
    weights = make.rand(1, queries, 8, 4, 4, grad=True)
    apply = MultiScaleDeformableAttnFunction.apply
    own = differentiated(lambda v, at, w: apply(v, shapes, starts, at, w, 64), value, locations, weights)
    plain = inspect.unwrap(multi_scale_deformable_attn_pytorch)  # without addp_mm's patch
    return own, differentiated(lambda v, at, w: plain(v, shapes, at, w), value, locations, weights)
