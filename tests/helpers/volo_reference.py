# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights and results of the published VOLO code (tests/data/README.md)."""

from functools import cache
from pathlib import Path

import torch

PATH = Path(__file__).parents[1] / 'data' / 'volo_reference.pt'
ATOL = 1e-5


@cache
def reference() -> dict:
    """All entries, weights in float32. Do not change them."""
    content = torch.load(PATH, weights_only=True)
    content['state_dict'] = {
        name: weight.float() if weight.is_floating_point() else weight for name, weight in content['state_dict'].items()
    }
    return content


def exchanged() -> float:
    """Share of the 4 x 4 tokens in the reference's box."""
    top, left, bottom, right = reference()['mix_box']
    return (bottom - top) * (right - left) / 16


def assert_close(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)
