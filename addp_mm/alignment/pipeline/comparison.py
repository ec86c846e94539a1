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
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.errors import ConfigError
from addp_mm.evaluation import Reference, build_extractor
from addp_mm.evaluation.compare_images import compute_scores
from addp_mm.evaluation.diversity import mean_pairwise_distance
from addp_mm.evaluation.feature_cache import default_cache_dir, finite

REWARD, DISTANCE, DIVERSITY = 'reward', 'frechet_distance', 'diversity'


def check_comparison(comparison: Comparison, device: torch.device) -> dict[str, str]:
    """Build what the comparison needs, to find errors before the work.

    Returns:
        Fingerprints of the weights of measures and extractor, and of the reference, by their keys.

    Raises:
        UserError: A reward, the extractor or the reference is wrong or missing.
    """
    rewards = {name: build_reward(cfg, _key(name), device) for name, cfg in comparison.measures.items()}
    found = {f'measures.{name}': reward.fingerprint() for name, reward in rewards.items()}
    extractor = build_extractor(_plain(comparison.extractor))
    found['extractor'] = extractor.fingerprint
    if comparison.reference is not None:
        path = Path(comparison.reference)
        if not path.exists():
            raise ConfigError(
                f'alignment.comparison.reference {comparison.reference} does not exist: give a folder of real images, '
                'or leave the Fréchet distance out: --cfg-options alignment.comparison.reference=None'
            )
        images = Reference(path, extractor).images
        found['reference'] = images.fingerprint() if path.is_dir() and images else file_fingerprint(path)
    return {key: fingerprint for key, fingerprint in found.items() if fingerprint}


def measure(
    samples: Samples,
    reward: Mapping[str, Any],
    comparison: Comparison,
    contents: Mapping[str, str],
    device: torch.device,
) -> dict[str, Any]:
    """Measure samples, unless this was done before with the same contents.

    Args:
        samples: The samples.
        reward: Config of the reward.
        comparison: What is measured.
        contents: Fingerprints of the files that are used, by their keys. Files of earlier versions
            do not have them, and count as made with these.
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
        before = found.get('contents', contents)
        if before == contents:
            return found
        changed = sorted(part for part in {*before, *contents} if before.get(part) != contents.get(part))
        print(f'{samples.folder} is measured again: {", ".join(changed)} changed')
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
    found = {'made_from': key, 'contents': dict(contents), 'rewards': rewards, DISTANCE: distance, DIVERSITY: known}
    write_json(path, found)
    return found


def _key(name: str) -> str:
    """Where the config of a reward is."""
    return f'alignment.{REWARD}' if name == REWARD else f'alignment.comparison.measures.{name}'


def _plain(extractor: str | Mapping[str, Any]) -> str | dict[str, Any]:
    return extractor if isinstance(extractor, str) else dict(extractor)
