# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hypothesis strategies for the inputs of this package, and how many examples are tried.

``FUZZ_PROFILE=long pytest tests/fuzz`` tries more, and others each time.
"""

from __future__ import annotations

import os
import string

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from addp_mm.diffusion import NoiseSchedule
from addp_mm.generation import SamplingSchedule

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile(
    'short', max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=_SLOW
)
settings.register_profile('long', max_examples=1000, database=None, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get('FUZZ_PROFILE', 'short'))

seeds = st.integers(0, 2**63 - 1)
#: Numbers that programs forget: huge, tiny, not finite, not a number.
odd_floats = st.sampled_from([0.0, -0.0, 1e-45, 1e30, -1e30, float('inf'), float('-inf'), float('nan')])


@st.composite
def noise_schedules(draw) -> NoiseSchedule:
    """Noise schedules with at least one level."""
    levels = draw(st.integers(1, 200))
    # the levels cos(πk / 2n), k from 1, are the highest at k = 1
    top = float(np.cos(np.pi / (2 * levels)))
    return NoiseSchedule(
        levels,
        min_ratio=draw(st.floats(0, top)),
        mean=draw(st.floats(0, 1)),
        std=draw(st.floats(0.1, 2)),
        max_stride=draw(st.integers(1, 10)),
    )


def sampling_schedules() -> st.SearchStrategy[SamplingSchedule]:
    """Options of generation."""
    ratios = st.sampled_from(['cosine', 'linear']) | st.floats(0.1, 8).map('power:{:.3f}'.format)
    return st.builds(
        SamplingSchedule,
        num_steps=st.integers(1, 40),
        ratio=ratios,
        temperature=st.floats(0, 20),
        anneal=st.booleans(),
        order=st.sampled_from(['confidence', 'halton']),
        top_p=st.floats(0.01, 1),
        top_k=st.none() | st.integers(1, 50),
    )


def generators() -> st.SearchStrategy[torch.Generator]:
    """Seeded generators."""
    return seeds.map(lambda seed: torch.Generator().manual_seed(seed))


def token_masks(rows: st.SearchStrategy[int], columns: st.SearchStrategy[int]) -> st.SearchStrategy[torch.Tensor]:
    """Masks over a grid of tokens, (rows, columns) bool."""
    shapes = st.tuples(rows, columns)
    return shapes.flatmap(lambda shape: npst.arrays(bool, shape)).map(torch.from_numpy)


@st.composite
def boxes(draw, most: int = 12, odd: bool = False) -> torch.Tensor:
    """Boxes (N, 4) x1, y1, x2, y2 in pixels; some are equal, empty or turned round.

    Args:
        draw: Given by hypothesis.
        most: Largest N.
        odd: Whether coordinates may also be NaN, Inf or huge.
    """
    # quarters, so that many coordinates are equal and sums are exact
    numbers = st.integers(-40, 120).map(lambda number: number / 4)
    rows = draw(st.lists(st.tuples(*[numbers | odd_floats if odd else numbers] * 4), max_size=most))
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@st.composite
def layouts_of(draw, tensor: torch.Tensor) -> torch.Tensor:
    """The same values with other strides."""
    kind = draw(st.sampled_from(['contiguous', 'transposed', 'gaps']))
    if kind == 'transposed' and tensor.ndim > 1:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if kind == 'gaps':
        return torch.stack([tensor, torch.full_like(tensor, 7)], -1)[..., 0]
    return tensor


words = st.text(string.ascii_letters + string.digits + '_', min_size=1, max_size=6).filter(str.isidentifier)
#: Texts of all kinds, with the characters that options give a meaning to.
texts = st.text(st.sampled_from('ab=.,:[](){}"\'_~/ 01-+eé²\n\\') | st.sampled_from('漢\ud800\0\u2028'), max_size=12)


def plain_values() -> st.SearchStrategy:
    """Values that an option can have: numbers, words, lists, tuples and dicts of them."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(10**6), 10**6)
        | st.floats(allow_nan=False, allow_infinity=False, width=32)
        | words
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3) | st.tuples(inner),
        max_leaves=8,
    )


def run_lengths(height: int, width: int) -> st.SearchStrategy[list[int]]:
    """Uncompressed RLE counts of a mask of this size."""
    ends = st.lists(st.integers(0, height * width), max_size=6).map(sorted)
    return ends.map(lambda cuts: np.diff([0, *cuts, height * width]).tolist())


def polygons(width: int, height: int) -> st.SearchStrategy[list[float]]:
    """Polygons [x, y, …], also with fewer than three points, inside an image or beside it."""
    point = st.tuples(st.integers(-4, 4 * width + 4), st.integers(-4, 4 * height + 4))
    return st.lists(point, max_size=5).map(lambda points: [side / 4 for one in points for side in one])


@st.composite
def coco_contents(draw) -> dict:
    """Contents of COCO files without a fault that must be refused, but with what is repaired."""
    images = [
        dict(id=number, file_name=f'{number}.png', width=draw(st.integers(1, 12)), height=draw(st.integers(1, 12)))
        for number in draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
    ]
    categories = [dict(id=number, name=f'class {number}') for number in range(draw(st.integers(1, 3)))]
    ids = draw(st.lists(st.integers(0, 9), max_size=4, unique=True))
    return dict(
        images=images, categories=categories, annotations=[draw(_annotations(i, images, categories)) for i in ids]
    )


@st.composite
def _annotations(draw, number: int, images: list[dict], categories: list[dict]) -> dict:
    image, category = draw(st.sampled_from(images)), draw(st.sampled_from(categories))
    either = st.sampled_from([int, str])
    found = dict(id=draw(either)(number), image_id=draw(either)(image['id']), category_id=draw(either)(category['id']))
    found['bbox'] = [draw(st.integers(0, side)) for side in (image['width'], image['height'], image['width'], 5)]
    rle = run_lengths(image['height'], image['width']).map(
        lambda counts: dict(size=[image['height'], image['width']], counts=counts)
    )
    optional = dict(
        area=st.none() | st.integers(0, 100),
        iscrowd=st.sampled_from([0, 1, None]),
        ignore=st.sampled_from([0, 1]),
        segmentation=st.lists(polygons(image['width'], image['height']), max_size=3) | rle,
    )
    return {**found, **draw(st.fixed_dictionaries({}, optional=optional))}
