# Copyright (c) addp_mm contributors. Apache-2.0.
"""Some tokens of finished images are drawn again: do images become right if the worst ones are?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from addp_mm.diffusion import mask_lowest
from addp_mm.errors import ConfigError
from addp_mm.generation.alternating_sampler import AlternatingSampler, check_batch_size
from addp_mm.generation.image_streams import image_generator
from addp_mm.generation.sampling_state import Samples
from addp_mm.generation.trajectories.trajectories import Trajectories, TrajectoryError
from addp_mm.randomness import Purpose, seed_sequence

#: What :func:`lowest_scored_step` gives where no step keeps two tokens.
NO_STEP = -1


def redraw_generators(seed: int, draw: int, numbers: Sequence[int]) -> list[torch.Generator]:
    """A random stream for each image, which the sampling of the images did not use.

    Args:
        seed: Seed of the run, not negative.
        draw: Number of the draw.
        numbers: Numbers of the images. A stream depends on the image's number, not on the others.
    """
    own_seed = int(seed_sequence(seed, Purpose.REDRAW, iteration=draw).generate_state(1)[0])
    return [image_generator(own_seed, number) for number in numbers]


def choose_tokens(values: Tensor, generated: Tensor, share: float) -> Tensor:
    """Choose the tokens with the lowest values.

    Args:
        values: Scores, log-probabilities or noise, (N, L).
        generated: Tokens that may be chosen, (N, L) bool.
        share: Share of each image's generated tokens, in (0, 1]. At least one is chosen.

    Returns:
        (N, L) bool.

    Raises:
        ConfigError: The share is out of its range.
        TrajectoryError: An image has no generated token.
    """
    if not 0 < share <= 1:
        raise ConfigError(f'the share of tokens that are drawn again must be in (0, 1], got {share}')
    _require_generated(generated)
    return mask_lowest(values, generated, (share * generated.sum(1)).round().long().clamp(min=1))


def lowest_scored_step(scores: Tensor, kept_at: Tensor) -> Tensor:
    """The step that kept the token with the lowest score.

    Steps that kept one token are left out: another token of the same step is the control.

    Args:
        scores: (N, L).
        kept_at: See :class:`~addp_mm.generation.trajectories.trajectories.Trajectories`, (N, L).

    Returns:
        (N,) int64; :data:`NO_STEP` for an image whose steps kept one token each.

    Raises:
        TrajectoryError: An image has no generated token.
    """
    generated, step_of = kept_at >= 0, kept_at.clamp(min=0)
    _require_generated(generated)
    counts = torch.zeros_like(kept_at[:, :1]).repeat(1, int(kept_at.max()) + 1)
    counts.scatter_add_(1, step_of, generated.long())
    candidates = generated & (counts.gather(1, step_of) >= 2)
    position = scores.masked_fill(~candidates, math.inf).argmin(1, keepdim=True)
    return torch.where(candidates.any(1), kept_at.gather(1, position)[:, 0], NO_STEP)


def lowest_of_step(values: Tensor, kept_at: Tensor, steps: Tensor) -> Tensor:
    """The position with the lowest value among the tokens of a step.

    Args:
        values: (N, L), finite.
        kept_at: (N, L).
        steps: A step of each image that kept a token, (N,).

    Returns:
        (N,) int64.
    """
    return values.masked_fill(kept_at != steps[:, None], math.inf).argmin(1)


def redraw_tokens(
    sampler: AlternatingSampler,
    trajectories: Trajectories,
    chosen: Tensor,
    generators: Sequence[torch.Generator],
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Draw the chosen tokens again, in all steps of the sampler; all others are known to it.

    Args:
        sampler: That of the trajectories.
        trajectories: Of N images.
        chosen: Tokens to draw again, (N, L) bool.
        generators: One for each image.
        batch_size: Images at a time. Defaults to None: all.
        progress: Called after each step with the number of images in the batch. Defaults to None.

    Raises:
        TrajectoryError: The trajectories do not fit the sampler.
    """
    own, labels = _on_the_device(sampler, trajectories)
    chosen = chosen.to(own.ids.device)
    return sampler.complete(own.ids, chosen, generators, labels, batch_size, progress=progress)


def redraw_and_continue(
    sampler: AlternatingSampler,
    trajectories: Trajectories,
    positions: Tensor,
    generators: Sequence[torch.Generator],
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Replace one token of each image by another id at its step, and continue from there.

    The steps before, and the other tokens of the same step, stay as they were. The token gets an
    id that it did not have, drawn from what the model predicted at this step. The sampler takes the
    later steps again.

    Args:
        sampler: See :func:`redraw_tokens`.
        trajectories: See :func:`redraw_tokens`.
        positions: The token of each image, (N,) int64.
        generators: See :func:`redraw_tokens`.
        batch_size: See :func:`redraw_tokens`. Defaults to None.
        progress: See :func:`redraw_tokens`. Defaults to None.

    Returns:
        Images and ids.

    Raises:
        TrajectoryError: The trajectories do not fit the sampler, or a token was not generated.
    """
    own, labels = _on_the_device(sampler, trajectories)
    positions = positions.to(own.ids.device)[:, None]
    _require_generated(own.generated.gather(1, positions))
    size = check_batch_size(batch_size, len(own))
    images, ids = [], []
    for begin in range(0, len(own), size):
        part = slice(begin, begin + size)
        classes = None if labels is None else labels[part]
        found = _continued(sampler, own[part], positions[part], generators[part], classes, progress)
        images.append(found[0])
        ids.append(found[1])
    return Samples(torch.cat(images), torch.cat(ids))


@torch.no_grad()
def _continued(
    sampler: AlternatingSampler,
    trajectories: Trajectories,
    positions: Tensor,
    generators: Sequence[torch.Generator],
    labels: Tensor | None,
    progress: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor]:
    """Images and ids of one batch; positions are (B, 1)."""
    old, kept_at = trajectories.ids, trajectories.kept_at
    last_step = kept_at.gather(1, positions)  # that is not taken freely
    token = torch.zeros_like(old, dtype=torch.bool).scatter(1, positions, True)
    state = sampler.start(old, kept_at >= 0, labels)
    for step in range(sampler.schedule.num_steps):
        logits = sampler.logits(state, labels)
        replaced = token & (kept_at == step)
        excluded = replaced[..., None] & (torch.arange(logits.shape[-1], device=old.device) == old[..., None])
        ids, mask, _ = sampler.draw(state, logits.masked_fill(excluded, -math.inf), generators)
        repeated = last_step >= step
        ids = torch.where(repeated & ~replaced, old, ids)
        state = sampler.next_state(state, logits, ids, torch.where(repeated, kept_at > step, mask))
        if progress is not None:
            progress(len(old))
    return state.images, state.ids


def _on_the_device(sampler: AlternatingSampler, trajectories: Trajectories) -> tuple[Trajectories, Tensor | None]:
    """The trajectories, checked, and their classes if the model has classes."""
    trajectories.check(sampler.num_tokens, sampler.schedule.num_steps, len(sampler.model.tokenizer.codebook))
    own = trajectories.to(sampler.model.tokenizer.codebook.device)
    return own, own.labels if sampler.num_classes else None


def _require_generated(generated: Tensor) -> None:
    missing = (~generated.any(1)).nonzero()[:, 0]
    if len(missing):
        raise TrajectoryError(
            f'trajectory {int(missing[0])} has no token that the sampler chose there: known tokens are not drawn again'
        )
