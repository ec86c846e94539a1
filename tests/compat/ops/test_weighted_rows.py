# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sums of rows against products with a dense matrix, and corners against a padded map."""

import pytest
import torch
import torch.nn.functional as F

from addp_mm.compat.ops.weighted_rows import (
    gradient_of_rows,
    gradient_of_weights,
    images_of,
    pixel_rows,
    weighted_sums,
    zero_padded_corners,
)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_sums_and_gradients_equal_those_of_a_dense_matrix(generator, device, dtype):
    index = torch.randint(9, (6, 4), generator=generator)  # of 11 rows: the last ones are never read
    index[0] = 3  # four times the same row
    weight = torch.randn(6, 4, generator=generator).to(dtype).requires_grad_()
    rows = torch.randn(11, 5, generator=generator).to(dtype).requires_grad_()
    flow = torch.randn(6, 5, generator=generator).to(dtype)
    dense = torch.zeros(6, 11, dtype=dtype).scatter_add(1, index, weight)
    expected = dense @ rows
    expected.backward(flow)
    on_device = [tensor.detach().to(device) for tensor in (rows, index.int(), weight, flow)]
    at, read, by, grad = on_device
    torch.testing.assert_close(weighted_sums(at, read, by).cpu(), expected.detach())
    torch.testing.assert_close(gradient_of_weights(grad, at, read).cpu(), weight.grad)
    torch.testing.assert_close(gradient_of_rows(grad, read, by, len(at)).cpu(), rows.grad)


def test_the_gradient_of_rows_is_the_same_each_time(generator):
    index = torch.randint(3, (500, 4), generator=generator).int()
    weight, grad = torch.randn(500, 4, generator=generator), torch.randn(500, 8, generator=generator)
    first = gradient_of_rows(grad, index, weight, 3)
    assert all(torch.equal(gradient_of_rows(grad, index, weight, 3), first) for _ in range(3))


def test_rows_of_pixels_and_back(generator):
    images = torch.randn(2, 6, 3, 4, generator=generator)
    assert torch.equal(images_of(pixel_rows(images), images.shape), images)
    assert torch.equal(images_of(pixel_rows(images, 3), images.shape), images)
    assert torch.equal(pixel_rows(images, 3)[((1 * 3 + 2) * 4 + 1) * 3 + 2], images[1, 4:, 2, 1])


def test_corners_read_a_map_with_zeros_around_it(generator):
    y = torch.tensor([-1.0, -0.25, 0.0, 1.5, 2.0, 2.75, 3.0, 1e6], dtype=torch.float64)
    x = torch.tensor([-1e6, -1.0, -0.5, 0.0, 2.25, 3.0, 3.5, 4.0], dtype=torch.float64)
    y, x = (axis.contiguous().requires_grad_() for axis in torch.meshgrid(y, x, indexing='ij'))
    image = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    index, weight = zero_padded_corners(y, x, 3, 4)
    values = (image.flatten()[index.long()] * weight).sum(-1)
    padded = F.pad(image, (2, 2, 2, 2))
    grid = torch.stack([(x.clamp(-2, 5) + 2) * 2 / 7 - 1, (y.clamp(-2, 4) + 2) * 2 / 6 - 1], -1).detach()
    expected = F.grid_sample(padded[None, None], grid[None], align_corners=True)[0, 0]
    torch.testing.assert_close(values.detach(), expected)
    values.sum().backward()
    outside = (y <= -1) | (y >= 3) | (x <= -1) | (x >= 4)
    assert not y.grad[outside].any()
    assert not x.grad[outside].any()
    assert y.grad[~outside].all()
