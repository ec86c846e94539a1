# Copyright (c) addp_mm contributors. Apache-2.0.
"""Functions of mmcv that call ``torch.cuda`` themselves work on the CPU; healthy ones stay."""

import importlib
import sys

import pytest
import torch
from helpers.modules import module_with

import addp_mm  # noqa: F401
from addp_mm.compat.point_functions import patch_carafe_naive, patch_current_device, patch_furthest_points

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='shows what happens without CUDA')


def points():
    return torch.tensor([[[0.0, 0, 0], [1, 0, 0], [4, 0, 0], [9, 0, 0]]])


def test_neighbours_and_furthest_points_have_the_values_of_a_line():
    from mmcv.ops import furthest_point_sample, knn

    assert knn(2, points()).transpose(1, 2).tolist() == [[[0, 1], [1, 0], [2, 1], [3, 2]]]
    assert furthest_point_sample(points(), 3).tolist() == [[0, 3, 2]]
    assert furthest_point_sample(points(), 3).dtype == torch.int32


def test_points_in_boxes_have_the_values_of_unit_boxes():
    from mmcv.ops import points_in_boxes_all, points_in_boxes_part

    boxes = torch.tensor([[[1.0, 0, -0.5, 1, 1, 1, 0], [1, 0, -0.5, 7, 1, 1, 0]]])
    assert points_in_boxes_part(points(), boxes).tolist() == [[1, 0, 1, -1]]
    assert points_in_boxes_all(points(), boxes).tolist() == [[[0, 1], [1, 1], [0, 1], [0, 0]]]


def test_the_gradient_of_carafe_naive():
    from mmcv.ops import carafe_naive

    generator = torch.Generator().manual_seed(0)
    leaves = [torch.rand(*s, generator=generator).double().requires_grad_() for s in ((1, 2, 2, 3), (1, 9, 4, 6))]
    assert torch.autograd.gradcheck(lambda x, m: carafe_naive(x, m, 3, 1, 2), leaves)


@no_cuda
def test_without_the_patch_furthest_points_fail():
    from mmcv.ops import furthest_point_sample

    cls = sys.modules['mmcv.ops.furthest_point_sample'].FurthestPointSampling
    assert furthest_point_sample(points(), 1).tolist() == [[0]]
    with pytest.raises((RuntimeError, AssertionError, TypeError, UnboundLocalError)):
        cls.forward.__wrapped__(None, points(), 2)


def carafe_naive_function(asserts):
    class CARAFENaiveFunction:
        @staticmethod
        def backward(ctx, grad_output):
            assert grad_output.is_cuda or not asserts
            return torch.zeros_like(ctx.saved_tensors[0])

    return CARAFENaiveFunction


@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode, lambda: torch.device('meta')])
def test_the_patches_can_be_made_where_there_are_no_gradients(context):
    with context():
        module = module_with(CARAFENaiveFunction=carafe_naive_function(True), ext_module=None)
        assert patch_carafe_naive(module)


@pytest.mark.parametrize(
    'patch, name, function',
    [
        (patch_current_device, 'knn', lambda k, xyz: None),
        (patch_furthest_points, 'furthest_point_sample', lambda xyz, number: None),
        (patch_carafe_naive, 'CARAFENaiveFunction', carafe_naive_function(False)),
    ],
)
def test_functions_without_the_fault_stay(patch, name, function):
    module = module_with(torch=torch, ext_module='operators', **{name: function})
    before = dict(vars(module))
    assert not patch(module)
    assert vars(module) == before


def test_the_probe_starts_no_cuda():
    importlib.import_module('mmcv.ops')
    assert torch.cuda.is_available() or not torch.cuda.is_initialized()
