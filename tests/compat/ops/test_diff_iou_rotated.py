# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch


def make(generator, count, dtype=torch.float64):
    center = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 4
    sides = 2 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 3
    return torch.cat([center, sides, torch.rand(count, 1, generator=generator, dtype=torch.float64) * 7], 1).to(dtype)


def test_it_is_the_overlap_of_rotated_boxes(mmcv_ops, generator, device):
    one, other = make(generator, 200, torch.float32), make(generator, 200, torch.float32)
    found = mmcv_ops.diff_iou_rotated_2d(one[None].to(device), other[None].to(device))[0].cpu()
    torch.testing.assert_close(found, mmcv_ops.box_iou_rotated(one, other, aligned=True), atol=1e-5, rtol=1e-5)
    assert 0.5 < (found > 0).float().mean() < 1


def test_gradient(mmcv_ops, generator):
    one, other = make(generator, 6), make(generator, 6)
    one, other = (boxes[None].requires_grad_() for boxes in (one, other))
    assert torch.autograd.gradcheck(mmcv_ops.diff_iou_rotated_2d, (one, other))
    height = torch.rand(1, 6, 2, generator=generator, dtype=torch.float64) + 1
    one, other = (
        torch.cat([boxes[..., :2], height[..., :1], boxes[..., 2:4], height[..., 1:], boxes[..., 4:]], -1)
        for boxes in (one.detach(), other.detach() + 0.1)
    )
    assert torch.autograd.gradcheck(mmcv_ops.diff_iou_rotated_3d, (one.requires_grad_(), other))


@pytest.mark.parametrize(
    'box, expected',
    [
        ((0.5, 0.5, 1, 1, 0), 1),  # the same
        ((0.5, 0.5, 1, 1, math.pi / 2), 1),  # the same, other corners
        ((0.5, 0.5, 1, 1, math.pi / 4), 1 / math.sqrt(2)),
        ((0.5, 0.5, 1, 1, 1e-4), 1),  # nearly the same
        ((1, 0.5, 1, 1, 0), 1 / 3),  # two common sides
        ((0.5, 0.5, 0.5, 0.5, math.pi / 4), 0.25),  # inside, with corners level with the center
        ((1.5, 0.5, 1, 1, 0), 0),  # one common side
        ((1.5, 1.5, 1, 1, 0), 0),  # a common corner
        ((9, 9, 1, 1, 1), 0),  # apart
    ],
)
def test_known_overlaps(mmcv_ops, box, expected):
    square = torch.tensor([[[0.5, 0.5, 1, 1, 0]]])
    found = mmcv_ops.diff_iou_rotated_2d(square, torch.tensor([[box]], dtype=torch.float32))
    assert found.item() == pytest.approx(expected, abs=2e-4)


def test_equal_boxes_have_the_gradient_of_the_first(mmcv_ops):
    box = torch.tensor([[[3.0, 4, 2, 1, 0.3]]], dtype=torch.float64, requires_grad=True)
    mmcv_ops.diff_iou_rotated_2d(box, box.detach().clone()).sum().backward()
    assert box.grad.isfinite().all()
    # a larger first box has a larger common area and a larger union, so the overlap stays
    assert box.grad[0, 0, 2:4].tolist() == pytest.approx([0.5, 1.0])


def sort(ext, points, corners=8):
    """The order of valid points (K, 2), of which the first are corners."""
    vertices, mask = torch.zeros(1, 1, 24, 2), torch.zeros(1, 1, 24, dtype=torch.bool)
    at = [*range(corners), *range(8, 24)][: len(points)]
    vertices[0, 0, at], mask[0, 0, at] = torch.tensor(points), True
    return ext.diff_iou_rotated_sort_vertices_forward(vertices, mask, mask.sum(2).int())[0, 0].tolist()


def test_points_are_sorted_from_the_x_axis_on(ext):
    found = sort(ext, [(-1.0, -1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, 1.0)])
    assert found == [1, 3, 0, 2, 1, 8, 8, 8, 8]
    found = sort(ext, [(0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0)], corners=2)
    assert found == [9, 1, 8, 0, 9, 10, 10, 10, 10]


def test_fewer_than_three_and_more_than_eight_points(ext):
    assert sort(ext, [(1.0, 0.0), (0.0, 1.0)]) == [8] * 9
    ring = [(math.cos(angle), math.sin(angle)) for angle in torch.arange(8).mul(math.pi / 4).tolist()]
    assert sort(ext, ring) == [*range(8), 0]
    near = [(x - 1e-6 * y, y + 1e-6 * x) for x, y in ring[1:6]]
    assert sort(ext, ring + near) == [*range(8), 0]
    assert sort(ext, ring[:4] * 2) == [0, 1, 2, 3, 0, 8, 8, 8, 8]


def test_no_boxes(ext):
    mask = torch.zeros(2, 0, 24, dtype=torch.bool)
    found = ext.diff_iou_rotated_sort_vertices_forward(torch.zeros(2, 0, 24, 2), mask, mask.sum(2).int())
    assert found.shape == (2, 0, 9)
