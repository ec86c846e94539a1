# Copyright (c) addp_mm contributors. Apache-2.0.
"""BezierAlign (Liu et al., ABCNet, https://arxiv.org/abs/2002.10200)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import RoIGrid, bilinear_corners, chunks, roi_grid
from .weighted_rows import RowGradient, images_of, pixel_rows, weighted_sums


@mmcv_op
def bezier_align_forward(
    input: Tensor,
    beziers: Tensor,
    output: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> None:
    """Pool the features between two cubic Bezier curves to a fixed size.

    The bins are axis-parallel. Bin i of n has its centre at i / n of the curves, or of the lines
    between them. The bins of a region cover as many rows and columns as one of its curves, the
    larger number of the two. These are the conventions of the compiled operator.

    Args:
        input: (N, C, H, W) features.
        beziers: (K, 17): index in the batch, then x and y in pixels of the image of the four
            control points of the upper curve, from left to right, and of the lower one, from right
            to left.
        output: (K, C, aligned_height, aligned_width); filled in place.
        aligned_height: Rows of bins of a region.
        aligned_width: Columns of bins of a region.
        spatial_scale: Pixels of the feature map for one of the image.
        sampling_ratio: Sampling points of a bin in each direction. 0: the size of the bin in
            pixels, rounded up.
        aligned: Whether to shift points by half a pixel. Otherwise regions are at least one pixel
            large.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input)
    regions = _Regions(beziers.to(dtype), aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    rows, (height, width) = pixel_rows(input.to(dtype)), input.shape[2:]
    for part in chunks(len(beziers), regions.pixels_read * max(4, input.size(1))):
        pooled = weighted_sums(rows, *regions.samples(part, height, width))
        shape = (-1, aligned_height, aligned_width, input.size(1))
        output[part] = pooled.view(shape).permute(0, 3, 1, 2).to(output.dtype)


@mmcv_op
def bezier_align_backward(
    grad_output: Tensor,
    beziers: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`bezier_align_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output)
    regions = _Regions(beziers.to(dtype), aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    images, channels, height, width = grad_input.shape
    gradient = RowGradient(pixel_rows(grad_output.to(dtype)), images * height * width)
    sums = torch.arange(len(beziers) * regions.bins, device=grad_output.device).view(len(beziers), -1)
    for part in chunks(len(beziers), regions.pixels_read * max(4, channels)):
        gradient.add(sums[part].flatten(), *regions.samples(part, height, width))
    grad_input += images_of(gradient.total(), grad_input.shape)


class _Regions(NamedTuple):
    """K regions between two curves, and how to sample them."""

    beziers: Tensor  # (K, 17)
    rows: int  # bins
    columns: int
    scale: float
    ratio: int
    aligned: bool

    @property
    def bins(self) -> int:
        """Bins of a region."""
        return self.rows * self.columns

    @property
    def pixels_read(self) -> int:
        """Pixels that the bins of a region read at most: four for each point."""
        return self.bins * self._grid(slice(None)).valid[0].numel() * 4

    def samples(self, part: slice, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Pixels (S, P) that the S bins of some regions sum, and their weights.

        Args:
            part: Which regions.
            height: Rows of the feature map.
            width: Columns of the feature map.
        """
        grid = self._grid(part)
        x, y = self._centres(part).unbind(-1)  # (k, PH, PW)
        bin_height, bin_width = grid.height / self.rows, grid.width / self.columns
        # points of the first bin of a region at the origin, relative to the bin's centre
        inner_y, inner_x = grid.y[:, 0] - bin_height[:, None] / 2, grid.x[:, 0] - bin_width[:, None] / 2
        y = y[..., None, None] + inner_y[:, None, None, :, None]
        x = x[..., None, None] + inner_x[:, None, None, None, :]
        y, x = torch.broadcast_tensors(y, x)
        index, weight = bilinear_corners(y, x, height, width)
        image = self.beziers[part, 0].long().view(-1, 1, 1, 1, 1, 1)
        share = grid.valid / grid.number[:, None, None]
        weight = weight * share[:, None, None, :, :, None]
        return (index + image * height * width).flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)

    def _grid(self, part: slice) -> RoIGrid:
        """Sampling points of boxes at the origin, as large as the regions."""
        controls = self.beziers[part, 1:].view(-1, 2, 4, 2) * self.scale
        size = (controls[:, :, 0] - controls[:, :, 3]).abs().amax(1)  # (k, 2) of x, y
        rois = torch.cat([torch.zeros_like(size), size[:, :1] * 0, size], dim=1)
        return roi_grid(rois, self.rows, self.columns, 1.0, self.ratio, self.aligned)

    def _centres(self, part: slice) -> Tensor:
        """(k, PH, PW, 2) x and y of the centres of bins."""
        controls = self.beziers[part, 1:].view(-1, 2, 4, 2) * self.scale
        u = torch.arange(self.columns, device=controls.device).to(controls.dtype) / self.columns
        v = (torch.arange(self.rows, device=controls.device).to(controls.dtype) / self.rows).view(-1, 1, 1)
        upper, lower = _curve(controls[:, 0], u), _curve(controls[:, 1].flip(1), u)
        return upper[:, None] * (1 - v) + lower[:, None] * v


def _curve(controls: Tensor, u: Tensor) -> Tensor:
    """Points (k, U, 2) of cubic curves at ``u`` (U,), from control points (k, 4, 2)."""
    basis = torch.stack([(1 - u) ** 3, 3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3], dim=1)
    return (basis[None, :, :, None] * controls[:, None]).sum(2)
