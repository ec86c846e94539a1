# Copyright (c) addp_mm contributors. Apache-2.0.
"""How critical each token of an answer is, found by continuing the answer before and after it."""

from __future__ import annotations

import torch
from answers import continue_answers, noise_for
from causal_transformer import CausalTransformer
from sum_task import SumTask
from torch import Tensor
from tqdm import tqdm


def shares_right(
    model: CausalTransformer, task: SumTask, ids: Tensor, terms: Tensor, rollouts: int, generator: torch.Generator
) -> Tensor:
    """Share of right continuations from each prefix of answers.

    Args:
        model: The model that continues.
        task: The task.
        ids: Questions with answers that end, int64 (N, L).
        terms: Digits of the questions, (N, num_terms).
        rollouts: Continuations of each prefix, R.
        generator: Draws the tokens.

    Returns:
        (N, answer_length + 1, R), float32, 1 where a continuation is right: column 0 is of the
        question alone, column i of the answer's first i tokens. After the end it is whether the
        answer is right.
    """
    # the same noise for all prefixes of an answer: a sure token changes no continuation
    noise = noise_for(task, len(ids) * rollouts, generator).view(len(ids), rollouts, task.length)
    lengths = task.answer_mask(ids).sum(1)
    shares = task.is_right(ids, terms).float()[:, None, None].repeat(1, task.answer_length + 1, rollouts)
    for length in tqdm(range(int(lengths.max())), desc='rollouts', leave=False):
        rows = (lengths > length).nonzero()[:, 0]
        prefixes = ids[rows, : task.question_length + length]
        found = continue_answers(model, task, prefixes, noise[rows].flatten(0, 1), rollouts)
        right = task.is_right(found, terms[rows].repeat_interleave(rollouts, 0))
        shares[rows, length] = right.float().view(-1, rollouts)
    return shares
