# Copyright (c) addp_mm contributors. Apache-2.0.
"""The methods that are compared, each with the same pairs and the same number of updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from answers import accuracy, noise_for
from causal_transformer import CausalTransformer
from settings import Settings, Stage, generator_of
from sum_task import SumTask
from tuning import Budget, Pairs, tuned_on_pairs, tuned_on_samples

from addp_mm.alignment import PreferenceLoss

WeightedBy = Literal['contrast', 'shuffled', 'base']


@dataclass(frozen=True)
class Method:
    """A method of fine-tuning.

    Args:
        loss: The loss of pairs; None trains on the right answers of the pairs only. Defaults to
            None.
        weighted_by: Where the weights 1 − s of the tokens of wrong answers come from. 'contrast':
            s is the contrastive score. 'shuffled': the same scores, in random order within each
            answer. 'base': s is the probability under the base model. Defaults to None: no weights.
    """

    loss: PreferenceLoss | None = None
    weighted_by: WeightedBy | None = None


METHODS: dict[str, Method] = {
    'SFT': Method(),
    'DPO': Method(PreferenceLoss()),
    'TokenDPO': Method(PreferenceLoss(form='token')),
    'RPO': Method(PreferenceLoss(likelihood_weight=1.0)),
    'cDPO, sequence': Method(PreferenceLoss(), 'contrast'),
    'cDPO, token': Method(PreferenceLoss(form='token'), 'contrast'),
    'scores shuffled': Method(PreferenceLoss(), 'shuffled'),
    'base probability': Method(PreferenceLoss(), 'base'),
}


def accuracies(model: CausalTransformer, task: SumTask, count: int, seed: int, stage: Stage) -> dict[str, float]:
    """Accuracy of a model on questions that follow from seed and stage: greedy and sampled."""
    generator = generator_of(seed, stage)
    terms, noise = task.questions(count, generator), noise_for(task, count, generator)
    return dict(greedy=accuracy(model, task, terms, None), sampled=accuracy(model, task, terms, noise))


def measured(
    name: str, base: CausalTransformer, task: SumTask, pairs: Mapping[WeightedBy, Pairs], settings: Settings, seed: int
) -> dict[str, Any]:
    """Train by a method with each learning rate, and test the best model.

    Args:
        name: Of the method.
        base: The base model.
        task: The task.
        pairs: The same pairs, with each kind of scores.
        settings: Sizes and lengths.
        seed: Seed of the run.

    Returns:
        The accuracies ``greedy`` and ``sampled`` on the test questions; the chosen ``lr``; the mean
        of both accuracies on the ``validation`` questions by learning rate; the ``rewards`` of the
        pairs.
    """
    best: tuple[float, float, CausalTransformer, dict[str, float]] | None = None
    validation = {}
    for lr in settings.lrs:
        budget = Budget(settings.steps, settings.batch_size, lr)
        model, rewards = _tuned(name, base, task, pairs, budget, seed)
        found = accuracies(model, task, settings.validation_questions, seed, Stage.VALIDATION)
        validation[f'{lr:g}'] = sum(found.values()) / 2
        if best is None or validation[f'{lr:g}'] > best[0]:
            best = validation[f'{lr:g}'], lr, model, rewards
    assert best is not None
    tested = accuracies(best[2], task, settings.test_questions, seed, Stage.TEST)
    return dict(**tested, lr=best[1], validation=validation, rewards=best[3])


def _tuned(
    name: str, base: CausalTransformer, task: SumTask, pairs: Mapping[WeightedBy, Pairs], budget: Budget, seed: int
) -> tuple[CausalTransformer, dict[str, float]]:
    method, generator = METHODS[name], generator_of(seed, Stage.METHODS)
    own, title = pairs[method.weighted_by or 'contrast'], f'{name}, lr {budget.lr:g}'
    if method.loss is None:
        return tuned_on_samples(base, task, own.chosen, budget, generator, title), {}
    weighted: Literal['none', 'rejected'] = 'rejected' if method.weighted_by else 'none'
    return tuned_on_pairs(base, task, own, method.loss, weighted, budget, generator, title)


def shuffled_scores(pairs: Pairs, task: SumTask, generator: torch.Generator) -> Pairs:
    """Pairs whose rejected scores are in random order within each answer."""
    mask = task.answer_mask(pairs.rejected)
    # tokens come before padding, in random order
    keys = torch.rand(mask.shape, generator=generator).masked_fill(~mask, 2.0)
    order = keys.argsort(dim=1, stable=True)
    return replace(pairs, rejected_scores=pairs.rejected_scores.gather(1, order))
