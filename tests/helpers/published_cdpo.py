# Copyright (c) addp_mm contributors. Apache-2.0.
"""Results of the published cDPO code, see ``tests/data/README.md``."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SIDES = ('chosen', 'rejected')


@cache
def reference() -> dict:
    """Made-up logits of four models, and scores and losses of the published code."""
    return torch.load(Path(__file__).parents[1] / 'data/cdpo_reference.pt', weights_only=True)


def published_scores(side: str) -> Tensor:
    """Scores (B, L) as the published loss uses them: the last position has no score of its own."""
    scores = reference()[side]['score'].clone()
    scores[:, -1] = 1.0 if side == 'chosen' else 0.0
    return scores
