# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features of chosen points (PointNet++, https://arxiv.org/abs/1706.02413)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .weighted_rows import gradient_of_rows, gradient_of_weights, weighted_sums


@mmcv_op
def gather_points_forward(
    points_tensor: Tensor, idx_tensor: Tensor, out_tensor: Tensor, b: int, c: int, n: int, npoints: int
) -> None:
    """Pick points.

    Args:
        points_tensor: (B, C, N) features.
        idx_tensor: (B, npoints) int32.
        out_tensor: (B, C, npoints); filled in place.
        b: B.
        c: C.
        n: N.
        npoints: Points to pick.
    """
    _gather(points_tensor, idx_tensor, out_tensor)


@mmcv_op
def gather_points_backward(
    grad_out_tensor: Tensor, idx_tensor: Tensor, grad_points_tensor: Tensor, b: int, c: int, n: int, npoints: int
) -> None:
    """Add the gradient of :func:`gather_points_forward` to ``grad_points_tensor`` (B, C, N)."""
    _scatter_add(grad_out_tensor, idx_tensor, grad_points_tensor)


@mmcv_op
def group_points_forward(
    points_tensor: Tensor, idx_tensor: Tensor, out_tensor: Tensor, b: int, c: int, n: int, npoints: int, nsample: int
) -> None:
    """Pick groups of points.

    Args:
        points_tensor: (B, C, N) features.
        idx_tensor: (B, npoints, nsample) int32.
        out_tensor: (B, C, npoints, nsample); filled in place.
        b: B.
        c: C.
        n: N.
        npoints: Number of groups.
        nsample: Points of a group.
    """
    _gather(points_tensor, idx_tensor, out_tensor)


@mmcv_op
def group_points_backward(
    grad_out_tensor: Tensor,
    idx_tensor: Tensor,
    grad_points_tensor: Tensor,
    b: int,
    c: int,
    n: int,
    npoints: int,
    nsample: int,
) -> None:
    """Add the gradient of :func:`group_points_forward` to ``grad_points_tensor`` (B, C, N)."""
    _scatter_add(grad_out_tensor, idx_tensor, grad_points_tensor)


@mmcv_op
def stack_group_points_forward(
    features_tensor: Tensor,
    features_batch_cnt_tensor: Tensor,
    idx_tensor: Tensor,
    idx_batch_cnt_tensor: Tensor,
    out_tensor: Tensor,
    b: int,
    c: int,
    m: int,
    nsample: int,
) -> None:
    """Pick groups of points, of scenes with different numbers of points.

    Args:
        features_tensor: (N1 + N2 + ..., C).
        features_batch_cnt_tensor: (B,) N1, N2, ...
        idx_tensor: (M1 + M2 + ..., nsample) int32 indices into the points of the scene.
        idx_batch_cnt_tensor: (B,) M1, M2, ...
        out_tensor: (M1 + M2 + ..., C, nsample); filled in place, but for indices that the scene
            does not have.
        b: B.
        c: C.
        m: M1 + M2 + ...
        nsample: Points of a group.
    """
    if out_tensor.numel() == 0 or features_tensor.numel() == 0:
        return
    row, exists = _rows_of_scenes(features_batch_cnt_tensor, idx_tensor, idx_batch_cnt_tensor)
    picked = features_tensor[row].transpose(1, 2)
    out_tensor.copy_(torch.where(exists[:, None], picked, out_tensor))


@mmcv_op
def stack_group_points_backward(
    grad_out_tensor: Tensor,
    idx_tensor: Tensor,
    idx_batch_cnt_tensor: Tensor,
    features_batch_cnt_tensor: Tensor,
    grad_features_tensor: Tensor,
    b: int,
    c: int,
    m: int,
    n: int,
    nsample: int,
) -> None:
    """Add the gradient of the forward pass to ``grad_features_tensor`` (N1 + N2 + ..., C)."""
    if grad_out_tensor.numel() == 0 or grad_features_tensor.numel() == 0:
        return
    row, exists = _rows_of_scenes(features_batch_cnt_tensor, idx_tensor, idx_batch_cnt_tensor)
    dtype = compute_dtype(grad_out_tensor)
    flow = torch.where(exists[:, None], grad_out_tensor.to(dtype), 0).transpose(1, 2)
    total = torch.zeros_like(grad_features_tensor, dtype=dtype)
    grad_features_tensor += total.index_add_(0, row.flatten(), flow.flatten(0, 1))


@mmcv_op
def three_interpolate_forward(
    points_tensor: Tensor, idx_tensor: Tensor, weight_tensor: Tensor, out_tensor: Tensor, b: int, c: int, m: int, n: int
) -> None:
    """Sum the features of three points with weights.

    Args:
        points_tensor: (B, C, M) features.
        idx_tensor: (B, N, 3) int32.
        weight_tensor: (B, N, 3).
        out_tensor: (B, C, N); filled in place.
        b: B.
        c: C.
        m: M.
        n: N.
    """
    if out_tensor.numel() == 0:
        return
    dtype = compute_dtype(points_tensor)
    rows = points_tensor.to(dtype).transpose(1, 2).flatten(0, 1)
    sums = weighted_sums(rows, _rows_of_batch(idx_tensor, m).flatten(0, 1), weight_tensor.to(dtype).flatten(0, 1))
    out_tensor.copy_(sums.view(b, n, c).transpose(1, 2))


@mmcv_op
def three_interpolate_backward(
    grad_out_tensor: Tensor,
    idx_tensor: Tensor,
    weight_tensor: Tensor,
    grad_points_tensor: Tensor,
    b: int,
    c: int,
    n: int,
    m: int,
) -> None:
    """Add the gradient of the forward pass to ``grad_points_tensor`` (B, C, M)."""
    if grad_out_tensor.numel() == 0:
        return
    dtype = compute_dtype(grad_out_tensor)
    flow = grad_out_tensor.to(dtype).transpose(1, 2).flatten(0, 1)
    index, weight = _rows_of_batch(idx_tensor, m).flatten(0, 1), weight_tensor.to(dtype).flatten(0, 1)
    grad_points_tensor += gradient_of_rows(flow, index, weight, b * m).view(b, m, c).transpose(1, 2)


@mmcv_op
def assign_score_withk_forward(
    points: Tensor,
    centers: Tensor,
    scores: Tensor,
    knn_idx: Tensor,
    output: Tensor,
    B: int,
    N0: int,
    N1: int,
    M: int,
    K: int,
    O: int,  # noqa: E741  # mmcv's name
    aggregate: int,
) -> None:
    """Mix the features of neighbours by scores (Xu et al., PAConv, arXiv 2103.14635).

    Args:
        points: (B, N0, M, O) features by each of M weight matrices.
        centers: (B, N0, M, O) features of centres, to subtract.
        scores: (B, N1, K, M) weights of the matrices.
        knn_idx: (B, N1, K) int64 neighbours; the first one is the centre. One that does not exist
            adds nothing.
        output: (B, O, N1, K); the result is added.
        B: Batch size.
        N0: Number of points.
        N1: Number of centres.
        M: Number of weight matrices.
        K: Number of neighbours.
        O: Number of channels.
        aggregate: Not used, as in mmcv.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(points)
    index, centre_index, weight = _mixtures(scores.to(dtype), knn_idx, N0)
    mixed = weighted_sums(points.to(dtype).flatten(0, 2), index, weight)
    mixed -= weighted_sums(centers.to(dtype).flatten(0, 2), centre_index, weight)
    output += mixed.view(B, N1, K, O).permute(0, 3, 1, 2)


@mmcv_op
def assign_score_withk_backward(
    grad_out: Tensor,
    points: Tensor,
    centers: Tensor,
    scores: Tensor,
    knn_idx: Tensor,
    grad_points: Tensor,
    grad_centers: Tensor,
    grad_scores: Tensor,
    B: int,
    N0: int,
    N1: int,
    M: int,
    K: int,
    O: int,  # noqa: E741  # mmcv's name
    aggregate: int,
) -> None:
    """Add the gradients of the forward pass to ``grad_points`` and the others."""
    if grad_out.numel() == 0:
        return
    dtype = compute_dtype(points)
    index, centre_index, weight = _mixtures(scores.to(dtype), knn_idx, N0)
    flow = grad_out.to(dtype).permute(0, 2, 3, 1).reshape(-1, O)
    by_score = torch.zeros_like(weight)
    for table, total, rows, sign in ((points, grad_points, index, 1), (centers, grad_centers, centre_index, -1)):
        total += gradient_of_rows(flow, rows, sign * weight, table[..., 0].numel()).view_as(total)
        by_score += sign * gradient_of_weights(flow, table.to(dtype).flatten(0, 2), rows)
    grad_scores += by_score.view_as(grad_scores) * _exists(knn_idx, N0)[..., None]


def _mixtures(scores: Tensor, neighbours: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows of the points and of the centres each neighbour mixes.

    Args:
        scores: (B, N1, K, M).
        neighbours: (B, N1, K).
        count: Number of points.

    Returns:
        Two (B * N1 * K, M) int64 rows of flat features (B * N0 * M, O), and their weights.
    """
    matrices = scores.size(3)
    point = _rows_of_batch(neighbours.clamp(0, count - 1), count)
    index = point[..., None] * matrices + torch.arange(matrices, device=scores.device)
    weight = scores * _exists(neighbours, count)[..., None]
    centre = index[:, :, :1].expand_as(index)
    return index.flatten(0, 2), centre.flatten(0, 2), weight.flatten(0, 2)


def _exists(index: Tensor, count: int | Tensor) -> Tensor:
    return (index >= 0) & (index < count)


def _rows_of_batch(index: Tensor, count: int) -> Tensor:
    """Rows of (B * count, ...) for indices (B, ...) into each of B tables: int64."""
    start = torch.arange(len(index), device=index.device) * count
    return index.long() + start.view(-1, *[1] * (index.dim() - 1))


def _rows_of_scenes(counts: Tensor, index: Tensor, index_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Rows for indices (M, S) into scenes with ``counts`` rows each, and which of them exist."""
    scene = torch.arange(len(counts), device=index.device).repeat_interleave(index_counts.long())
    counts, index = counts.long(), index.long()
    exists = _exists(index, counts[scene, None])
    start = (counts.cumsum(0) - counts)[scene, None]
    return torch.where(exists, index + start, 0), exists


def _gather(points: Tensor, index: Tensor, output: Tensor) -> None:
    """Fill ``output`` (B, C, ...) with columns of points (B, C, N), from indices (B, ...)."""
    channels = points.size(1)
    index = index.long().flatten(1)[:, None].expand(-1, channels, -1)
    output.copy_(points.gather(2, index).view(output.shape))


def _scatter_add(flow: Tensor, index: Tensor, total: Tensor) -> None:
    """Add the gradient of :func:`_gather` to ``total`` (B, C, N)."""
    batch, channels, count = total.shape
    dtype = compute_dtype(flow)
    row = _rows_of_batch(index, count).flatten()
    rows = torch.zeros(batch * count, channels, dtype=dtype, device=flow.device)
    rows.index_add_(0, row, flow.to(dtype).flatten(2).transpose(1, 2).flatten(0, 1))
    total += rows.view(batch, count, channels).transpose(1, 2)
