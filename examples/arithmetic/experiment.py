# Copyright (c) addp_mm contributors. Apache-2.0.
"""The whole experiment with one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from agreement import ExaminedAnswer
from answers import answer_logits, continue_answers, noise_for
from causal_transformer import CausalTransformer
from methods import METHODS, WeightedBy, accuracies, measured, shuffled_scores
from rollouts import shares_right
from settings import Settings, Stage, generator_of
from sum_task import END, PADDING, SumTask
from torch import Tensor
from tuning import Budget, Pairs, train_on_task, tuned_on_samples

from addp_mm.alignment import contrastive_scores, token_log_probs
from addp_mm.alignment.pairs import Selection, SelectionRule, select
from addp_mm.errors import ConfigError
from addp_mm.randomness import Purpose, seed_process

#: What suspects the tokens of a wrong answer, see :meth:`Models.suspicion`.
SUSPICION = ('contrast', 'positive', 'base', 'log-ratio', 'entropy')
_MOST_ROUNDS = 200


@dataclass(frozen=True)
class Models:
    """The base model and what light fine-tuning makes of it.

    Args:
        task: The task.
        base: The base model.
        positive: After right samples.
        negative: After wrong samples.
        contrast: Strength of the contrast.
    """

    task: SumTask
    base: CausalTransformer
    positive: CausalTransformer
    negative: CausalTransformer
    contrast: float

    @torch.no_grad()
    def scores(self, ids: Tensor) -> Tensor:
        """Contrastive scores of the tokens of answers, (N, L) to (N, answer_length)."""
        positive, negative = (answer_logits(model, self.task, ids) for model in (self.positive, self.negative))
        return contrastive_scores(positive, negative, self._tokens(ids), self.contrast, self.task.answer_mask(ids))

    @torch.no_grad()
    def base_probabilities(self, ids: Tensor) -> Tensor:
        """Probabilities of the tokens of answers under the base model, (N, answer_length)."""
        return self._log_probs(self.base, ids).exp()

    @torch.no_grad()
    def suspicion(self, ids: Tensor) -> dict[str, Tensor]:
        """Numbers of the tokens of answers, (N, answer_length), larger where a token is suspected.

        ``contrast``: 1 − s. ``positive`` and ``base``: 1 − its probability under that model.
        ``log-ratio``: its log-probability under the negative model minus that under the positive
        one. ``entropy``: of the base model's prediction, in nats.
        """
        base = answer_logits(self.base, self.task, ids).log_softmax(-1)
        positive, negative = (self._log_probs(model, ids) for model in (self.positive, self.negative))
        numbers = (
            1 - self.scores(ids),
            1 - positive.exp(),
            1 - self.base_probabilities(ids),
            negative - positive,
            -(base.exp() * base).sum(-1),
        )
        return dict(zip(SUSPICION, numbers, strict=True))

    def _log_probs(self, model: CausalTransformer, ids: Tensor) -> Tensor:
        return token_log_probs(answer_logits(model, self.task, ids), self._tokens(ids), self.task.answer_mask(ids))

    def _tokens(self, ids: Tensor) -> Tensor:
        return ids[:, self.task.question_length :]


def run_seed(settings: Settings, seed: int) -> dict[str, Any]:
    """Run the experiment.

    Args:
        settings: Sizes and lengths.
        seed: Seed of everything.

    Returns:
        Content of a JSON file: ``accuracy`` by method, ``samples`` and ``pairs``, counts of the
        selection, ``answers``, see :class:`~agreement.ExaminedAnswer`, and ``seconds`` by stage.
    """
    task, clock = SumTask(settings.num_terms), _Clock()
    base = clock('base', lambda: trained_base(task, settings, seed))
    samples, selection = clock('samples', lambda: sampled_pairs(base, task, settings, seed))
    models = clock('light', lambda: light_models(base, task, samples, selection, settings, seed))
    answers = clock('rollouts', lambda: examined_answers(models, settings, seed))
    pairs = scored_pairs(models, samples, selection, seed)
    tested = {
        name: accuracies(model, task, settings.test_questions, seed, Stage.TEST)
        for name, model in (('base', base), ('positive', models.positive), ('negative', models.negative))
    }
    found = clock('methods', lambda: {name: measured(name, base, task, pairs, settings, seed) for name in METHODS})
    return dict(
        accuracy={**tested, **found},
        samples={**selection.counts, 'right': len(selection.right), 'pairs': len(selection.pairs)},
        answers=[answer.as_dict() for answer in answers],
        seconds=clock.seconds,
    )


class _Clock:
    """Calls functions and notes the seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, stage: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = stage()
        self.seconds[name] = round(time.perf_counter() - start, 1)
        return result


def trained_base(task: SumTask, settings: Settings, seed: int) -> CausalTransformer:
    """Train the base model."""
    seed_process(seed, Purpose.TRAINING_STEP, iteration=Stage.WEIGHTS, accelerators=False)
    model = CausalTransformer(PADDING, task.length, settings.embed_dims, settings.depth)
    budget = Budget(settings.base_steps, settings.base_batch_size, settings.base_lr)
    train_on_task(model, task, budget, generator_of(seed, Stage.BASE))
    return model


def sampled_pairs(base: CausalTransformer, task: SumTask, settings: Settings, seed: int) -> tuple[Tensor, Selection]:
    """Sample answers of the base model; select right and wrong ones, and pairs.

    Returns:
        All samples, int64 (N, L), and the selection of their rows.
    """
    generator = generator_of(seed, Stage.SAMPLES)
    terms = task.questions(settings.questions, generator)
    noise = noise_for(task, settings.questions * settings.samples, generator)
    samples = continue_answers(base, task, task.prompts(terms), noise, settings.samples)
    numbers = torch.arange(settings.questions).repeat_interleave(settings.samples)
    right = task.is_right(samples, terms[numbers]).double()
    rule = SelectionRule('threshold', 1.0, 0.0, settings.pairs_per_question)
    return samples, select(right.tolist(), numbers.tolist(), samples, rule)


def light_models(
    base: CausalTransformer, task: SumTask, samples: Tensor, selection: Selection, settings: Settings, seed: int
) -> Models:
    """Fine-tune the base on all right samples, and on all wrong ones."""
    budget = Budget(settings.light_steps, settings.light_batch_size, settings.light_lr)
    positive, negative = (
        tuned_on_samples(base, task, samples[rows], budget, generator_of(seed, Stage.LIGHT), name)
        for rows, name in ((selection.right, 'positive model'), (selection.wrong, 'negative model'))
    )
    return Models(task, base, positive, negative, settings.contrast)


def scored_pairs(models: Models, samples: Tensor, selection: Selection, seed: int) -> dict[WeightedBy, Pairs]:
    """The pairs with each kind of scores."""
    chosen, rejected = (samples[[pair[side] for pair in selection.pairs]] for side in range(2))
    pairs = Pairs(chosen, rejected, models.scores(chosen), models.scores(rejected))
    base = Pairs(chosen, rejected, models.base_probabilities(chosen), models.base_probabilities(rejected))
    shuffled = shuffled_scores(pairs, models.task, generator_of(seed, Stage.SHUFFLE))
    return dict(contrast=pairs, shuffled=shuffled, base=base)


def examined_answers(models: Models, settings: Settings, seed: int) -> list[ExaminedAnswer]:
    """Sample wrong answers to new questions, and examine each of their tokens."""
    task, generator = models.task, generator_of(seed, Stage.ROLLOUTS)
    ids, terms = _wrong_answers(models.base, task, settings.rollout_answers, generator)
    found = shares_right(models.base, task, ids, terms, settings.rollouts, generator)
    shares, halves = found.mean(2), [half.mean(2) for half in found.chunk(2, 2)]
    suspicion, lengths = models.suspicion(ids), task.answer_mask(ids).sum(1).tolist()
    return [
        ExaminedAnswer(
            question=task.text(ids[row, : task.question_length]),
            tokens=task.text(ids[row, task.question_length :]),
            shares=shares[row, : length + 1].tolist(),
            halves=(halves[0][row, : length + 1].tolist(), halves[1][row, : length + 1].tolist()),
            suspicion={name: values[row, :length].tolist() for name, values in suspicion.items()},
        )
        for row, length in enumerate(lengths)
    ]


def _wrong_answers(
    base: CausalTransformer, task: SumTask, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Wrong answers that end, int64 (count, L), and the digits of their questions."""
    ids, terms, missing = [], [], count
    for _ in range(_MOST_ROUNDS):
        asked = task.questions(count, generator)
        answers = continue_answers(base, task, task.prompts(asked), noise_for(task, count, generator))
        rows = (~task.is_right(answers, asked) & (answers == END).any(1)).nonzero()[:missing, 0]
        ids.append(answers[rows])
        terms.append(asked[rows])
        missing -= len(rows)
        if not missing:
            return torch.cat(ids), torch.cat(terms)
    raise ConfigError(
        f'the base model gave only {count - missing} wrong answers to {_MOST_ROUNDS * count} questions, and '
        f'rollout_answers is {count}: lower base_steps or rollout_answers in settings.py'
    )
