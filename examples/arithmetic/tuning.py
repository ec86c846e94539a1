# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training of a model: on texts, on samples, and on pairs of samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from answers import answer_log_probs
from causal_transformer import CausalTransformer
from sum_task import SumTask
from torch import Tensor, nn
from tqdm import tqdm

from addp_mm.alignment import PreferenceLoss, SequenceLogProbs, token_weights
from addp_mm.alignment.token_metrics import preference_metrics
from addp_mm.alignment.token_scores import Sides

_WARM_UP = 0.1  # share of the steps


@dataclass(frozen=True)
class Budget:
    """Length and speed of a training.

    Args:
        steps: Updates of the weights.
        batch_size: Texts, or pairs, in an update.
        lr: Largest learning rate. It rises linearly over a tenth of the steps, then falls to 0 as a
            cosine.
    """

    steps: int
    batch_size: int
    lr: float

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm_up = max(1, round(_WARM_UP * self.steps))
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        return self.lr * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up))) / 2


def train_on_task(model: CausalTransformer, task: SumTask, budget: Budget, generator: torch.Generator) -> None:
    """Train on right answers of new questions in each step.

    Args:
        model: Changed in place.
        task: The task.
        budget: Length of the training.
        generator: Draws questions and answers.
    """

    def loss(_step: int) -> Tensor:
        ids = task.written(task.questions(budget.batch_size, generator), generator)
        return _negative_log_likelihood(model, task, ids)

    _train(model, budget, loss, 'base model')


def tuned_on_samples(
    base: CausalTransformer, task: SumTask, samples: Tensor, budget: Budget, generator: torch.Generator, name: str
) -> CausalTransformer:
    """Train a copy of a model on samples.

    Args:
        base: The model.
        task: The task.
        samples: Questions with answers, int64 (N, L).
        budget: Length of the training.
        generator: Draws the batches.
        name: For the progress bar.

    Returns:
        The copy.
    """
    model = copy.deepcopy(base)
    batches = _batches(len(samples), budget, generator)
    _train(model, budget, lambda _step: _negative_log_likelihood(model, task, samples[next(batches)]), name)
    return model


@dataclass(frozen=True)
class Pairs:
    """Pairs of answers to one question each.

    Args:
        chosen: Questions with right answers, int64 (P, L).
        rejected: With wrong ones, int64 (P, L).
        chosen_scores: Contrastive scores of the tokens, (P, answer_length).
        rejected_scores: Those of the wrong answers.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_scores: Tensor
    rejected_scores: Tensor


def tuned_on_pairs(
    base: CausalTransformer,
    task: SumTask,
    pairs: Pairs,
    loss: PreferenceLoss,
    weighted: Sides,
    budget: Budget,
    generator: torch.Generator,
    name: str,
) -> tuple[CausalTransformer, dict[str, float]]:
    """Train a copy of a model to prefer the right answer of each pair.

    Args:
        base: The model; it is the reference as well.
        task: The task.
        pairs: The pairs.
        loss: The loss.
        weighted: Which sides have weights, see :func:`~addp_mm.alignment.token_weights`.
        budget: Length of the training.
        generator: Draws the batches.
        name: For the progress bar.

    Returns:
        The copy, and its rewards on the pairs, see
        :func:`~addp_mm.alignment.token_metrics.preference_metrics`.
    """
    model, batches = copy.deepcopy(base), _batches(len(pairs.chosen), budget, generator)
    chosen = _side(base, task, pairs.chosen, token_weights(pairs.chosen_scores, 'chosen', weighted))
    rejected = _side(base, task, pairs.rejected, token_weights(pairs.rejected_scores, 'rejected', weighted))

    def batch_loss(_step: int) -> Tensor:
        rows = next(batches)
        policy = answer_log_probs(model, task, torch.cat([chosen.ids[rows], rejected.ids[rows]])).chunk(2)
        return loss(chosen.batch(policy[0], rows), rejected.batch(policy[1], rows))

    _train(model, budget, batch_loss, name)
    ratios = [_log_probs(model, task, side.ids) - side.reference for side in (chosen, rejected)]
    rewards = preference_metrics(ratios[0], ratios[1], loss.beta)
    return model, {key: value.item() for key, value in rewards.items()}


@dataclass(frozen=True)
class _Side:
    """One side of all pairs: what stays the same in the training."""

    ids: Tensor
    reference: Tensor
    mask: Tensor
    weights: Tensor

    def batch(self, policy: Tensor, rows: Tensor) -> SequenceLogProbs:
        """Some pairs, with their log-probabilities under the model that is trained."""
        return SequenceLogProbs(policy, self.reference[rows], self.mask[rows], self.weights[rows])


def _side(base: CausalTransformer, task: SumTask, ids: Tensor, weights: Tensor) -> _Side:
    return _Side(ids, _log_probs(base, task, ids), task.answer_mask(ids), weights)


@torch.no_grad()
def _log_probs(model: CausalTransformer, task: SumTask, ids: Tensor) -> Tensor:
    return answer_log_probs(model, task, ids)


def _negative_log_likelihood(model: CausalTransformer, task: SumTask, ids: Tensor) -> Tensor:
    """Mean over the tokens of all answers."""
    return -answer_log_probs(model, task, ids).sum() / task.answer_mask(ids).sum()


def _batches(count: int, budget: Budget, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of each batch: all rows in random order, then again in another one."""
    rows = torch.empty(0, dtype=torch.long)
    while True:
        while len(rows) < budget.batch_size:
            rows = torch.cat([rows, torch.randperm(count, generator=generator)])
        yield rows[: budget.batch_size]
        rows = rows[budget.batch_size :]


def _train(model: nn.Module, budget: Budget, loss: Callable[[int], Tensor], name: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.lr, betas=(0.9, 0.98), weight_decay=0.01)
    for step in tqdm(range(budget.steps), desc=name, leave=False):
        for group in optimizer.param_groups:
            group['lr'] = budget.lr_at(step)
        optimizer.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
