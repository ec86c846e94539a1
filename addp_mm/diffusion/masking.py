# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masks of masked token modelling, and the tokens that the encoder sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from addp_mm.diffusion.schedule import masked_count


def truncated_normal_ratios(
    num_rows: int, mean: float, std: float, minimum: float, generator: torch.Generator, shared: bool = False
) -> Tensor:
    """Mask ratios from a normal density truncated to [``minimum``, 1] (MAGE, arXiv 2211.09117).

    Args:
        num_rows: Number of rows B.
        mean: Mean of the density before truncation.
        std: Standard deviation of the density before truncation.
        minimum: Smallest ratio.
        generator: Source of the ratios, on the CPU.
        shared: Whether all rows have the same ratio, as in MAGE's released code. Defaults to False.

    Returns:
        (B, 1), float32, on the CPU.
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
    """Random masks of given ratios, and the positions that an encoder keeps.

    One noise draw gives both, so that all dropped positions are masked (MAGE, arXiv 2211.09117, and
    its released code, which drops ``ceil(num_tokens * 0.5)`` positions of each row).

    Args:
        ratios: Share of masked tokens of each row, (B, 1), on the CPU.
        num_tokens: Number of tokens L.
        generator: Source of the noise, on the CPU.
        drop_ratio: Share of all tokens that are dropped, the same number in each row. Defaults to
            0.
        device: Device of the results. Defaults to None: the CPU.

    Returns:
        ``mask`` (B, L), bool, True where masked: ``ceil(L * ratio)`` positions of a row, at least
        as many as are dropped. ``kept`` (B, K), int64, ascending: the positions that are not
        dropped; None if ``drop_ratio`` is 0.

    Raises:
        ValueError: ``drop_ratio`` is outside [0, 1).
    """
    if not 0 <= drop_ratio < 1:
        raise ValueError(f'drop_ratio must be in [0, 1), got {drop_ratio}')
    num_dropped = masked_count(num_tokens, drop_ratio)
    order = torch.rand(len(ratios), num_tokens, generator=generator).argsort(1)
    mask = order.argsort(1) < (ratios * num_tokens).ceil().clamp(min=num_dropped)
    kept = order[:, num_dropped:].sort(1).values if num_dropped else None
    return mask.to(device), None if kept is None else kept.to(device)


def seeded_masks(ids: Tensor, ratios: Sequence[float], seed: int) -> Tensor:
    """Random masks that depend on a row's own ids and a seed only, for evaluation.

    A row has the same masks in every run, batch and process. Its masks are nested: each contains
    those of smaller ratios, so that all ratios are compared on one draw.

    Args:
        ids: (B, L), int64, on any device.
        ratios: R shares of masked tokens.
        seed: Not negative.

    Returns:
        (R, B, L), bool, on the device of the ids: True at ``ceil(L * ratio)`` positions of each
        row.
    """
    ranks = torch.stack(
        [torch.from_numpy(np.random.default_rng([seed, *row]).permutation(len(row))) for row in ids.tolist()]
    )
    return torch.stack([ranks < masked_count(ids.shape[1], ratio) for ratio in ratios]).to(ids.device)
