# Copyright (c) addp_mm contributors. Apache-2.0.
"""The sampler of stored trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from addp_mm.generation.alternating_model import AlternatingModel
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.guidance import Guidance
from addp_mm.generation.sampling_schedule import SamplingSchedule


def sampler_of(settings: Mapping[str, Any], model: AlternatingModel, grid_size: tuple[int, int]) -> AlternatingSampler:
    """The sampler with which trajectories were made.

    Args:
        settings: Settings of the trajectories; see
            :func:`~addp_mm.sampling_options.settings_of`.
        model: The model, in eval mode.
        grid_size: (h, w) in tokens.
    """
    schedule = SamplingSchedule(
        num_steps=settings['steps'],
        ratio=settings['schedule'],
        temperature=settings['temperature'],
        anneal=not settings['constant_temperature'],
        order=settings['order'],
        top_p=settings['top_p'],
        top_k=settings['top_k'],
    )
    guidance = Guidance(settings['guidance'], settings['guidance_shape'] or 'constant')
    return AlternatingSampler(model, grid_size, schedule, guidance)


@contextmanager
def precision_of_sampling(settings: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Compute in the precision of the trajectories, whatever the training has."""
    with torch.autocast(device.type, torch.bfloat16, enabled=settings['amp']):
        yield
