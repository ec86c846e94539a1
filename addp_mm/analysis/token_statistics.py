# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count the codes in stored token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from addp_mm.datasets.tokens.token_store import IDS, finished_shards, open_ids

_ROWS = 4096  # images that are read at once


@dataclass(frozen=True)
class TokenStatistics:
    """Numbers of stored token ids.

    Attributes:
        images: Number of images.
        broken: Number of images that could not be read when the ids were written.
        views: Views of an image.
        tokens: Tokens of a view.
        codes: Number of codes between 0 and the highest one that occurs.
        used: Number of codes that occur.
        perplexity: Exponential of the entropy of the codes: how many are used evenly.
    """

    images: int
    broken: int
    views: int
    tokens: int
    codes: int
    used: int
    perplexity: float


def token_statistics(folder: Path) -> TokenStatistics:
    """Count the codes in a folder of token ids.

    Raises:
        TokenStoreError: The ids are incomplete or damaged.
    """
    shards = finished_shards(folder)
    maps = [open_ids(shard / IDS, about) for shard, about in shards]
    broken = sum(len(about['broken']) for _, about in shards)
    counts = np.zeros(0, np.int64)
    rows = sum(len(ids) for ids in maps)
    with tqdm(desc='Counting codes', total=rows, unit='', unit_scale=True, disable=None, leave=False) as progress:
        for ids in maps:
            for start in range(0, len(ids), _ROWS):
                found = np.bincount(np.asarray(ids[start : start + _ROWS]).ravel(), minlength=len(counts))
                found[: len(counts)] += counts
                counts = found
                progress.update(min(_ROWS, len(ids) - start))
    shares = counts[counts > 0] / counts.sum()
    return TokenStatistics(
        images=rows - broken,
        broken=broken,
        views=int(maps[0].shape[1]),
        tokens=int(maps[0].shape[2]),
        codes=len(counts),
        used=int((counts > 0).sum()),
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
    )
