# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sizes and lengths of the experiment, and its random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from addp_mm.randomness import Purpose, torch_generator


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment. Every method has the same ones.

    Args:
        num_terms: Digits in a question. Defaults to 5.
        embed_dims: Channels of the model. Defaults to 64.
        depth: Blocks of the model. Defaults to 3.
        base_steps: Updates of the base model. It stops long before it has learned the task.
            Defaults to 370.
        base_batch_size: Answers in an update of the base model. Defaults to 128.
        base_lr: Largest learning rate of the base model. Defaults to 2e-3.
        questions: Questions of which answers are sampled. Defaults to 1500.
        samples: Answers to each of them. Defaults to 8.
        pairs_per_question: Largest number of pairs of a question. Defaults to 4.
        light_steps: Updates of the positive, and of the negative, model. Defaults to 60.
        light_batch_size: Answers in such an update. Defaults to 128.
        light_lr: Its largest learning rate. Defaults to 5e-4.
        contrast: Strength of the contrast in the scores. Defaults to 1.
        steps: Updates of each method. Defaults to 80.
        batch_size: Pairs in an update of a method. Defaults to 32.
        lrs: Learning rates of a method. The one that is best on the validation questions counts.
            Defaults to 1e-5, 3e-5, 1e-4, 3e-4 and 1e-3.
        validation_questions: New questions for the choice of the learning rate. Defaults to 500.
        test_questions: New questions for the accuracies. Defaults to 2000.
        rollout_answers: Wrong answers to new questions, of which each token is examined. Defaults
            to 100.
        rollouts: Continuations of each prefix of them, an even number. Defaults to 32.
    """

    num_terms: int = 5
    embed_dims: int = 64
    depth: int = 3
    base_steps: int = 370
    base_batch_size: int = 128
    base_lr: float = 2e-3
    questions: int = 1500
    samples: int = 8
    pairs_per_question: int = 4
    light_steps: int = 60
    light_batch_size: int = 128
    light_lr: float = 5e-4
    contrast: float = 1.0
    steps: int = 80
    batch_size: int = 32
    lrs: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
    validation_questions: int = 500
    test_questions: int = 2000
    rollout_answers: int = 100
    rollouts: int = 32


class Stage(IntEnum):
    """Stages of a seed, each with random numbers of its own. Do not change the values."""

    WEIGHTS = 0
    BASE = 1
    SAMPLES = 2
    LIGHT = 3
    ROLLOUTS = 4
    METHODS = 5
    VALIDATION = 6
    TEST = 7
    SHUFFLE = 8


def generator_of(seed: int, stage: Stage) -> torch.Generator:
    """The random numbers of a stage."""
    return torch_generator(seed, Purpose.TRAINING_STEP, iteration=stage)
