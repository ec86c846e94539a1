# Copyright (c) addp_mm contributors. Apache-2.0.
"""Answers of a model: sampled, and their logits."""

from __future__ import annotations

import torch
from causal_transformer import Cache, CausalTransformer
from sum_task import END, PADDING, SumTask
from torch import Tensor

from addp_mm.alignment import token_log_probs

_ROWS = 4096  # answers that are sampled at the same time


@torch.no_grad()
def continue_answers(
    model: CausalTransformer, task: SumTask, prefixes: Tensor, noise: Tensor | None, repeats: int = 1
) -> Tensor:
    """Continue texts from left to right until they end.

    Args:
        model: The model.
        task: The task.
        prefixes: Texts of one length without an end, int64 (N, T).
        noise: Uniform numbers in [0, 1), one for each place, (N * repeats, L): tokens are sampled
            at temperature 1. With the same noise, two prefixes of a text have the same continuation
            if the sampled tokens agree with the longer one. None: the most likely token each time.
        repeats: Continuations of each text. Defaults to 1.

    Returns:
        int64 (N * repeats, L); those of one text are neighbours. After the end there is padding.
    """
    size = max(1, _ROWS // repeats)
    parts = [
        _continue(model, task, part, None if noise is None else noise[start * repeats :], repeats)
        for start, part in zip(range(0, len(prefixes), size), prefixes.split(size), strict=True)
    ]
    return torch.cat(parts)


def _continue(model: CausalTransformer, task: SumTask, prefixes: Tensor, noise: Tensor | None, repeats: int) -> Tensor:
    logits, cache = model.step(prefixes, [None] * len(model.blocks))
    # the prefix is computed once for all of its continuations
    logits, cache = logits[:, -1].repeat_interleave(repeats, 0), _repeated(cache, repeats)
    ids = torch.full((len(logits), task.length), PADDING)
    ids[:, : prefixes.shape[1]] = prefixes.repeat_interleave(repeats, 0)
    going = torch.ones(len(ids), dtype=torch.bool)
    for place in range(prefixes.shape[1], task.length):
        drawn = logits.argmax(1) if noise is None else _sampled(logits, noise[: len(logits), place])
        ids[:, place] = drawn.where(going, torch.tensor(PADDING))
        going = going & (drawn != END)
        if not going.any() or place == task.length - 1:
            break
        logits, cache = model.step(ids[:, place : place + 1], cache)
        logits = logits[:, -1]
    return ids


def _sampled(logits: Tensor, noise: Tensor) -> Tensor:
    """The token at which the sum of the probabilities, (B, K), exceeds the noise, (B,)."""
    sums = logits.softmax(1).cumsum(1)
    # the last sum may be a little below 1
    return torch.searchsorted(sums, noise[:, None] * sums[:, -1:], right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def _repeated(cache: Cache, repeats: int) -> Cache:
    return [None if past is None else tuple(part.repeat_interleave(repeats, 0) for part in past) for past in cache]  # type: ignore[misc]


def answer_logits(model: CausalTransformer, task: SumTask, ids: Tensor) -> Tensor:
    """Logits of the tokens of answers.

    Args:
        model: The model.
        task: The task.
        ids: Questions with answers, int64 (N, L).

    Returns:
        (N, answer_length, K): for each token of the answer, from all tokens before it.
    """
    return model(ids[:, :-1])[:, task.question_length - 1 :]


def answer_log_probs(model: CausalTransformer, task: SumTask, ids: Tensor) -> Tensor:
    """Log-probabilities of the tokens of answers, (N, answer_length); 0 for padding."""
    logits = answer_logits(model, task, ids)
    return token_log_probs(logits, ids[:, task.question_length :], task.answer_mask(ids))


def noise_for(task: SumTask, count: int, generator: torch.Generator) -> Tensor:
    """Noise for :func:`continue_answers`, (count, L)."""
    return torch.rand(count, task.length, generator=generator)


def accuracy(model: CausalTransformer, task: SumTask, terms: Tensor, noise: Tensor | None) -> float:
    """Share of questions that are answered right.

    Args:
        model: The model.
        task: The task.
        terms: Digits of the questions, (N, num_terms).
        noise: See :func:`continue_answers`, (N, L).
    """
    ids = continue_answers(model, task, task.prompts(terms), noise)
    return task.is_right(ids, terms).double().mean().item()
