# Copyright (c) addp_mm contributors. Apache-2.0.
"""The experiment: which share of wrong images become right if chosen tokens are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addp_mm.alignment.intervals import mean_with_interval, share_difference_with_interval, share_with_interval
from addp_mm.alignment.redraw import (
    NO_STEP,
    choose_tokens,
    lowest_of_step,
    lowest_scored_step,
    redraw_and_continue,
    redraw_generators,
    redraw_tokens,
)
from addp_mm.alignment.rewards import Reward
from addp_mm.diffusion import uniform_noise
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.sampling_state import Samples
from addp_mm.generation.trajectories.sampler_settings import precision_of_sampling
from addp_mm.generation.trajectories.trajectories import Trajectories

#: How tokens are chosen. The last two are controls, which choose as many.
LOWEST_SCORE, LOWEST_PROBABILITY, RANDOM = CHOICES = ('lowest score', 'lowest probability', 'random')


def right_thresholds(rewards: Sequence[float], right: Sequence[Hashable], wrong: Sequence[Hashable]) -> list[float]:
    """From which reward on each wrong image counts as right.

    It is the lowest reward of a right image of the same question, or, if it has none, of all right
    images.

    Args:
        rewards: Of the right images.
        right: Questions of the right images, at least one.
        wrong: Questions of the wrong images.
    """
    lowest: dict[Hashable, float] = {}
    for question, reward in zip(right, rewards, strict=True):
        lowest[question] = min(reward, lowest.get(question, reward))
    return [lowest.get(question, min(rewards)) for question in wrong]


def decoded_images(sampler: AlternatingSampler, trajectories: Trajectories, batch_size: int) -> Tensor:
    """Images (N, C, H, W) that the tokens of trajectories show."""
    device = sampler.model.tokenizer.codebook.device
    return torch.cat([sampler.finished_pixels(ids.to(device)) for ids in trajectories.ids.split(batch_size)])


def rewards_of(reward: Reward, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Rewards (N,) of images, batch by batch."""
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return torch.cat([reward(*pair) for pair in pairs])


@dataclass
class Case:
    """Images whose tokens were chosen in one way.

    Attributes:
        choice: One of :data:`CHOICES`.
        share: Share of the tokens that were drawn again; None if one token was replaced, and the
            sampler continued from its step on.
        rows: Rows of the images.
        tokens: Mean number of chosen tokens.
        rewards: A reward of each image and draw, (N, D).
        right: Whether it is right, (N, D) bool.
        changed: Mean share of the chosen tokens with another id than before.
        shown: The first images of the first draw, uint8 (S, H, W, 3).
    """

    choice: str
    share: float | None
    rows: list[int]
    tokens: float
    rewards: np.ndarray
    right: np.ndarray
    changed: float
    shown: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Numbers of the case, as JSON values."""
        return dict(
            choice=self.choice,
            share=self.share,
            images=len(self.rows),
            tokens=self.tokens,
            changed=self.changed,
            right=asdict(share_with_interval(self.right.mean(1))),
            reward=asdict(mean_with_interval(self.rewards.mean(1))),
            rewards=self.rewards.tolist(),
        )

    def minus(self, other: Case) -> dict[str, Any]:
        """Differences from a control of the same images, with intervals over images."""
        return dict(
            share=self.share,
            choice=self.choice,
            minus=other.choice,
            right=asdict(share_difference_with_interval(self.right.mean(1) - other.right.mean(1))),
            reward=asdict(mean_with_interval(self.rewards.mean(1) - other.rewards.mean(1))),
        )


@dataclass
class RedrawExperiment:
    """Draws tokens of wrong images again, and judges the new images.

    The noise of an image depends on the seed, its number and the draw. All choices have the same
    noise.

    Args:
        sampler: That of the trajectories.
        settings: Settings of the trajectories.
        reward: Judges images.
        trajectories: Of N wrong images.
        scores: Of their tokens, (N, L).
        numbers: Numbers of the images.
        thresholds: From which reward on an image is right, N.
        seed: Seed of the draws.
        num_draws: Draws of each image. Defaults to 4.
        batch_size: Images at a time. Defaults to 16.
        num_shown: Images of each case to keep. Defaults to 8.
        progress: Called after each step with the number of images in the batch. Defaults to None.
    """

    sampler: AlternatingSampler
    settings: Mapping[str, Any]
    reward: Reward
    trajectories: Trajectories
    scores: Tensor
    numbers: Sequence[int]
    thresholds: Sequence[float]
    seed: int
    num_draws: int = 4
    batch_size: int = 16
    num_shown: int = 8
    progress: Callable[[int], None] | None = None
    steps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.steps = lowest_scored_step(self.scores, self.trajectories.kept_at)

    def tokens_again(self, choice: str, share: float) -> Case:
        """Draw a share of the tokens again while all others are known."""
        return self._case(choice, share, [*range(len(self.numbers))])

    def from_the_step_on(self, choice: str) -> Case | None:
        """Replace a token at its step and continue from there.

        The step is that of the token with the lowest score, whatever the choice, so that all
        choices keep the same tokens.

        Returns:
            The case of those images of which a step kept at least two tokens; None if there are
            none.
        """
        rows = (self.steps != NO_STEP).nonzero()[:, 0].tolist()
        return self._case(choice, None, rows) if rows else None

    def _case(self, choice: str, share: float | None, rows: list[int]) -> Case:
        own, thresholds = self.trajectories[rows], torch.tensor(self.thresholds)[rows]
        rewards, counts, changed = [], [], []
        for draw in range(self.num_draws):
            generators = redraw_generators(self.seed, draw, [self.numbers[row] for row in rows])
            chosen, samples = self._redrawn(choice, share, rows, generators)
            rewards.append(rewards_of(self.reward, samples.images, own.labels, self.batch_size))
            counts.append(float(chosen.sum(1).double().mean()))
            changed.append(float((samples.ids.cpu() != own.ids)[chosen].double().mean()))
            if draw == 0:
                shown = to_uint8(samples.images[: self.num_shown])
        found = torch.stack(rewards, 1)
        return Case(
            choice,
            share,
            rows,
            tokens=float(np.mean(counts)),
            rewards=found.double().numpy(),
            right=(found >= thresholds[:, None]).numpy(),
            changed=float(np.mean(changed)),
            shown=shown,
        )

    def _redrawn(
        self, choice: str, share: float | None, rows: list[int], generators: list[torch.Generator]
    ) -> tuple[Tensor, Samples]:
        """The chosen tokens, (N, L) bool, and the new images."""
        own, scores = self.trajectories[rows], self.scores[rows]
        noise = uniform_noise(*scores.shape, generator=generators)
        values = {LOWEST_SCORE: scores, LOWEST_PROBABILITY: own.log_probs, RANDOM: noise}[choice]
        with precision_of_sampling(self.settings, self.sampler.model.tokenizer.codebook.device):
            if share is not None:
                chosen = choose_tokens(values, own.generated, share)
                return chosen, redraw_tokens(self.sampler, own, chosen, generators, self.batch_size, self.progress)
            positions = lowest_of_step(values, own.kept_at, self.steps[rows])
            samples = redraw_and_continue(self.sampler, own, positions, generators, self.batch_size, self.progress)
        return torch.zeros_like(own.generated).scatter(1, positions[:, None], True), samples
