# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure a generator on images of fresh seeds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from addp_mm.alignment.pairs import questions_of
from addp_mm.alignment.pipeline.plan import Comparison
from addp_mm.alignment.pipeline.samples import Samples, read_if_made_from, rewards_of
from addp_mm.alignment.rewards import build_reward
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.errors import ConfigError
from addp_mm.evaluation import Reference, build_extractor
from addp_mm.evaluation.compare_images import compute_scores
from addp_mm.evaluation.diversity import mean_pairwise_distance
from addp_mm.evaluation.feature_cache import default_cache_dir, finite

REWARD, DISTANCE, DIVERSITY = 'reward', 'frechet_distance', 'diversity'


def check_comparison(comparison: Comparison, device: torch.device) -> None:
    """Build what the comparison needs, to find errors before the work.

    Raises:
        UserError: A reward, the extractor or the reference is wrong or missing.
    """
    for name, cfg in comparison.measures.items():
        build_reward(cfg, _key(name), device)
    extractor = build_extractor(_plain(comparison.extractor))
    if comparison.reference is not None:
        if not Path(comparison.reference).exists():
            raise ConfigError(
                f'alignment.comparison.reference {comparison.reference} does not exist: give a folder of real images, '
                'or leave the Fréchet distance out: --cfg-options alignment.comparison.reference=None'
            )
        Reference(comparison.reference, extractor)


def measure(
    samples: Samples, reward: Mapping[str, Any], comparison: Comparison, device: torch.device
) -> dict[str, Any]:
    """Measure samples, unless this was done before.

    Args:
        samples: The samples.
        reward: Config of the reward.
        comparison: What is measured.
        device: Device of the rewards and of the feature extractor.

    Returns:
        ``rewards``: name and reward of each image, of the reward and of all measures;
        ``frechet_distance`` (None without a reference) and ``diversity`` (None if no question has
        two images).
    """
    path, name = samples.folder / 'measures.json', samples.folder.name
    # the settings of the samples have the fingerprint of the weights
    content = json.dumps([samples.settings, samples.numbers, reward, vars(comparison)], sort_keys=True, default=str)
    key = hashlib.sha256(content.encode()).hexdigest()
    if found := read_if_made_from(path, key):
        return found
    rewards = {
        title: rewards_of(build_reward(cfg, _key(title), device), samples, f'{name}: {title}')
        for title, cfg in {REWARD: reward, **comparison.measures}.items()
    }
    extractor = build_extractor(_plain(comparison.extractor)).to(device)
    batches = samples.batches(f'{name}: features')
    vectors = finite(torch.cat([extractor(images.to(device)).cpu().float() for images, _ in batches]), extractor.name)
    distance = None
    if comparison.reference is not None:
        reference = Reference(comparison.reference, extractor, cache_dir=default_cache_dir(), device=device)
        reference.prepare(with_features=False)
        distance = next(iter(compute_scores(['fid'], extractor, vectors, None, reference).values()))
    diversity = mean_pairwise_distance(vectors, questions_of(samples.trajectories))
    known = None if math.isnan(diversity) else diversity
    found = {'made_from': key, 'rewards': rewards, DISTANCE: distance, DIVERSITY: known}
    write_json(path, found)
    return found


def _key(name: str) -> str:
    """Where the config of a reward is."""
    return f'alignment.{REWARD}' if name == REWARD else f'alignment.comparison.measures.{name}'


def _plain(extractor: str | Mapping[str, Any]) -> str | dict[str, Any]:
    return extractor if isinstance(extractor, str) else dict(extractor)
