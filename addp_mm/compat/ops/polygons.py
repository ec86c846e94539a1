# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convex polygons: area, convex hull, and the area that two of them share.

The intersection clips one polygon by the sides of the other, one after the other (Sutherland and
Hodgman, https://doi.org/10.1145/360767.360802), for many pairs at once. A convex polygon has at
most one corner more after each clip, so that all pairs have the same number of slots; spare slots
repeat a corner.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# corners (P, K, 2) and (P, M, 2) of pairs near the origin -> (P,)
PairAreas = Callable[[Tensor, Tensor], Tensor]

_CHUNK_BOXES = 1 << 22  # of the comparison of bounding boxes
_CHUNK_PAIRS = 1 << 14  # of the clipping: its temporary tensors stay in the cache


class Polygons(NamedTuple):
    """N convex polygons of K corners each. A polygon may repeat a corner."""

    center: Tensor  # (N, 2) x, y
    corners: Tensor  # (N, K, 2) from the center, so that polygons far from the origin are exact

    @classmethod
    def of(cls, points: Tensor) -> 'Polygons':
        """Polygons of their corners (N, K, 2), in order, in either direction."""
        center = points.mean(1)
        return cls(center, points - center[:, None])


def cross(first: Tensor, second: Tensor) -> Tensor:
    """Cross products of vectors: (..., 2), (..., 2) -> (...)."""
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def signed_areas(corners: Tensor) -> Tensor:
    """Areas of polygons: (N, K, 2) -> (N,); positive if y is left of x in the order of corners."""
    rays = corners - corners[:, :1]
    return cross(rays, rays.roll(-1, 1)).sum(1) / 2


def shared_areas(first: Polygons, second: Polygons, areas_of: PairAreas, gap: float = 0.0) -> Tensor:
    """Areas that polygons share, all with all.

    Only pairs whose bounding boxes touch are computed. A polygon with NaN or Inf shares nothing.

    Args:
        first: N polygons.
        second: M polygons.
        areas_of: The area that two polygons share, such as :func:`intersection_areas`.
        gap: Largest distance of bounding boxes of polygons that may share something. Defaults to 0.

    Returns:
        (N, M).
    """
    shared = first.corners.new_zeros(len(first.center), len(second.center))
    step = max(_CHUNK_BOXES // max(len(second.center), 1), 1)
    for start in range(0, len(first.center), step):
        rows, columns = _touching(first, second, slice(start, start + step), gap)
        shared[rows, columns] = shared_areas_of_pairs(first, second, rows, columns, areas_of)
    return shared


def shared_areas_of_pairs(
    first: Polygons, second: Polygons, rows: Tensor, columns: Tensor, areas_of: PairAreas
) -> Tensor:
    """Areas that some pairs share.

    Args:
        first: N polygons.
        second: M polygons.
        rows: (P,) int64, the first polygon of each pair.
        columns: (P,) int64, the second one.
        areas_of: As in :func:`shared_areas`.

    Returns:
        (P,).
    """
    parts = [first.corners.new_zeros(0)]
    if len(rows) == 0:
        return parts[0]
    for one, other in zip(rows.split(_CHUNK_PAIRS), columns.split(_CHUNK_PAIRS), strict=True):
        # the middle between the two centers is the origin
        half = (first.center[one] - second.center[other])[:, None] / 2
        parts.append(areas_of(first.corners[one] + half, second.corners[other] - half))
    return torch.cat(parts).nan_to_num(nan=0, posinf=0)


def _touching(first: Polygons, second: Polygons, part: slice, gap: float) -> tuple[Tensor, Tensor]:
    """Pairs whose bounding boxes are at most ``gap`` apart: two tensors (P,) of indices."""
    low, high = (first.center + edge for edge in (first.corners.amin(1) - gap, first.corners.amax(1) + gap))
    other_low, other_high = (second.center + edge for edge in (second.corners.amin(1), second.corners.amax(1)))
    touch = (low[part, None, 0] <= other_high[:, 0]) & (high[part, None, 0] >= other_low[:, 0])
    touch &= (low[part, None, 1] <= other_high[:, 1]) & (high[part, None, 1] >= other_low[:, 1])
    rows, columns = touch.nonzero(as_tuple=True)
    return rows + part.start, columns


def intersection_areas(first: Tensor, second: Tensor) -> Tensor:
    """Areas that pairs of convex polygons near the origin share; differentiable.

    Where sides of the two lie on each other, the gradient is that of moving the first one inwards.

    Args:
        first: (P, K, 2) corners.
        second: (P, M, 2) corners.

    Returns:
        (P,).
    """
    sign = signed_areas(second).detach().sign()
    points, clip = first.permute(2, 1, 0), second.permute(2, 1, 0)  # slots first: (2, K, P), (2, M, P)
    size = torch.cat([points, clip], 1).detach().abs().amax((0, 1))
    # a corner that is on a side but for rounding is inside, or collinear corners would alternate
    tolerance = 4 * torch.finfo(first.dtype).eps * size
    for start, edge in zip(clip.unbind(1), (clip.roll(-1, 1) - clip).unbind(1), strict=True):
        points = _clip(points, start, edge * sign, tolerance)
    areas = signed_areas(points.permute(2, 1, 0)).abs()
    return areas.masked_fill(sign == 0, 0)  # a polygon without area clips nothing away


def _clip(points: Tensor, start: Tensor, edge: Tensor, tolerance: Tensor) -> Tensor:
    """Keep what is left of lines.

    Args:
        points: (2, K, P) x and y of the corners of P polygons.
        start: (2, P) a point of each line.
        edge: (2, P) direction of each line.
        tolerance: (P,) a distance; corners that are closer to the line are kept.

    Returns:
        (2, K + 1, P).
    """
    side = edge[0] * (points[1] - start[1]) - edge[1] * (points[0] - start[0])
    inside = side.detach() >= -tolerance * edge.detach().abs().sum(0)
    inside_next = inside.roll(-1, 0)
    leaving, _ = _crossing(points, side, inside & ~inside_next)
    entering, position = _crossing(points, side, ~inside & inside_next)
    # what is outside shrinks to the point where the outline leaves; the one where it enters is new
    kept = torch.where(inside, points, leaving)
    slot = torch.arange(points.size(1) + 1, device=points.device)[:, None]
    grown = torch.where(slot <= position, torch.cat([kept, kept[:, -1:]], 1), torch.cat([kept[:, :1], kept], 1))
    return torch.where(slot == position + 1, entering, grown)


def _crossing(points: Tensor, side: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
    """Where an outline crosses a line.

    Args:
        points: (2, K, P) corners.
        side: (K, P) distances to the line, positive inside, in any unit.
        here: (K, P) bool, whether the line is between a corner and the next.

    Returns:
        (2, 1, P) points, the first corner if there is no crossing; and (1, P) int64, the corners
        before them.
    """
    count = len(side)
    position = (here * torch.arange(count, device=side.device)[:, None]).amax(0, keepdim=True)
    following = (position + 1) % count
    exists = here.any(0, keepdim=True)
    near, far = (side.gather(0, index) for index in (position, following))
    share = torch.where(exists, near, 0) / torch.where(exists, near - far, 1)
    # rounding could leave the side; the gradient stays that of the crossing
    share = share + (share.clamp(0, 1) - share).detach()
    begin, end = (points.gather(1, index.expand(2, 1, -1)) for index in (position, following))
    return begin + share * (end - begin), position


def convex_hulls(points: Tensor) -> Tensor:
    """Corners of convex hulls, by gift wrapping (Jarvis, 1973).

    Args:
        points: (N, K, 2), K at least 1.

    Returns:
        (N, H) int64 indices of points, H at most K, from that of the smallest y (then the smallest
        x) on, in the direction from x to y. After the last corner, the first one is repeated. Of
        equal points, the first is taken; points between two corners are left out.
    """
    x, y = points.unbind(-1)
    first = torch.where(y == y.amin(1, keepdim=True), x, torch.inf).argmin(1, keepdim=True)
    here, hull = first, [first]
    closed = torch.zeros_like(first, dtype=torch.bool)
    direction = points.new_tensor([1.0, 0.0]).expand(len(points), 1, 2)
    for _ in range(points.size(1) - 1):
        corner = corners_at(points, here)
        here = _next_corner(points - corner, direction)
        direction = corners_at(points, here) - corner
        closed = closed | (here == first)
        if bool(closed.all()):
            break
        hull.append(torch.where(closed, first, here))
    return torch.cat(hull, 1)


def _next_corner(rays: Tensor, direction: Tensor) -> Tensor:
    """The farthest of the points in the direction of the smallest turn.

    Args:
        rays: (N, K, 2) from a corner to all points.
        direction: (N, 1, 2) from the corner before to this one.

    Returns:
        (N, 1) int64.
    """
    turn = torch.atan2(cross(direction, rays), (direction * rays).sum(-1))
    turn = torch.where(turn < -torch.pi / 2, turn + 2 * torch.pi, turn)  # half a turn, but for rounding
    length = rays.square().sum(-1)
    turn = turn.masked_fill(length == 0, torch.inf)
    found = torch.where(turn == turn.amin(1, keepdim=True), length, -1).argmax(1, keepdim=True)
    # the turns of equal points may differ, because kernels compute the last elements in another way
    return (rays == corners_at(rays, found)).all(-1).to(torch.uint8).argmax(1, keepdim=True)


def corners_at(points: Tensor, index: Tensor) -> Tensor:
    """Select points of each row: (N, K, 2), (N, M) -> (N, M, 2)."""
    return points.gather(1, index[..., None].expand(-1, -1, 2))


def row_chunks(count: int) -> Iterator[slice]:
    """Split rows into slices of as many as are clipped at once."""
    return (slice(start, start + _CHUNK_PAIRS) for start in range(0, count, _CHUNK_PAIRS))
