# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masks of masked token modelling: a share of the tokens for each row, and which of them the encoder sees at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from addp_mm.diffusion.schedule import masked_count


def truncated_normal_ratios(
    num_rows: int, mean: float, std: float, minimum: float, generator: torch.Generator, shared: bool = False
) -> Tensor:
    """Mask ratios by a normal density that is cut off at ``minimum`` and 1 (MAGE, arXiv 2211.09117).

    Args:
        num_rows: Number of rows B.
        mean: Mean of the density before it is cut off.
        std: Its standard deviation.
        minimum: Smallest ratio.
        generator: Source of the ratios, on the CPU.
        shared: Whether all rows have the same ratio, as in MAGE's released code.

    Returns:
        Shape (B, 1), float32, on the CPU.
    """
    ratios = torch.empty(1 if shared else num_rows, 1)
    nn.init.trunc_normal_(ratios, mean, std, minimum, 1.0, generator)
    return ratios.expand(num_rows, 1)


def random_masks(
    ratios: Tensor,
    num_tokens: int,
    generator: torch.Generator,
    drop_ratio: float = 0.0,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Random masks of given ratios, and the places that an encoder keeps when it drops masked ones.

    One noise draw gives both, so that what is dropped is masked (MAGE, arXiv 2211.09117, and its
    released code, where ``ceil(num_tokens * 0.5)`` places of each row are dropped).

    Args:
        ratios: Share of masked tokens of each row, shape (B, 1), on the CPU.
        num_tokens: Number of tokens L.
        generator: Source of the noise, on the CPU.
        drop_ratio: Share of all tokens that are dropped, the same number in each row.
        device: Where the results go; ``None``: the CPU.

    Returns:
        ``mask`` (B, L), bool, True where masked: ``ceil(L * ratio)`` places of a row and never less than are dropped;
        and ``kept`` (B, K), int64, ascending: the places that are not dropped, or ``None`` where
        ``drop_ratio`` is 0.

    Raises:
        ValueError: If ``drop_ratio`` is outside [0, 1).
    """
    if not 0 <= drop_ratio < 1:
        raise ValueError(f'drop_ratio must lie in [0, 1), got {drop_ratio}')
    num_dropped = masked_count(num_tokens, drop_ratio)
    order = torch.rand(len(ratios), num_tokens, generator=generator).argsort(1)
    mask = order.argsort(1) < (ratios * num_tokens).ceil().clamp(min=num_dropped)
    kept = order[:, num_dropped:].sort(1).values if num_dropped else None
    return mask.to(device), None if kept is None else kept.to(device)


def seeded_masks(ids: Tensor, ratios: Sequence[float], seed: int) -> Tensor:
    """Random masks that follow from a row's own ids and a seed, for measuring.

    So a row has the same masks in every run, whatever batch, process or place in the order it comes
    in. The masks of a row lie within one another, so that ratios are compared on the same draw.

    Args:
        ids: Shape (B, L), int64, on any device.
        ratios: R shares of masked tokens.
        seed: Not negative.

    Returns:
        Shape (R, B, L), bool, where the ids are: True at ``ceil(L * ratio)`` places of each row.
    """
    ranks = torch.stack(
        [torch.from_numpy(np.random.default_rng([seed, *row]).permutation(len(row))) for row in ids.tolist()]
    )
    return torch.stack([ranks < masked_count(ids.shape[1], ratio) for ratio in ratios]).to(ids.device)
