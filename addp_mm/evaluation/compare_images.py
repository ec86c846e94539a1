# Copyright (c) addp_mm contributors. Apache-2.0.
"""Scores of generated images by name: FID, IS, KID, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from addp_mm.errors import ConfigError, first_few, suggest
from addp_mm.evaluation.feature_cache import finite
from addp_mm.evaluation.feature_extractors import FeatureExtractor
from addp_mm.evaluation.feature_statistics import FeatureStatistics, frechet_distance
from addp_mm.evaluation.generation_scores import FEWEST, inception_score, kernel_distance, precision_recall
from addp_mm.evaluation.reference import Reference

SCORES = ('fid', 'is', 'kid', 'prc')
NEED_FEATURES = ('kid', 'prc')
_BATCH = 1024


def check_scores(scores: Sequence[str]) -> tuple[str, ...]:
    """Return the names of scores; refuse an unknown one.

    Raises:
        ConfigError: A name is unknown, or there is none.
    """
    scores = (scores,) if isinstance(scores, str) else tuple(scores)
    unknown = [name for name in scores if name not in SCORES]
    if unknown or not scores:
        wrong = f'{unknown[0]!r} is unknown{suggest(str(unknown[0]), SCORES)}' if unknown else 'there is none'
        raise ConfigError(f'scores of generated images are {", ".join(SCORES)}; {wrong}')
    return tuple(name for name in SCORES if name in scores)


def missing_for(
    score: str, extractor: FeatureExtractor, reference: Reference | None, num_images: int | None = None
) -> str | None:
    """Why a score cannot be computed; None if it can.

    Args:
        score: One of :data:`SCORES`.
        extractor: The network.
        reference: What the images are compared with, or None.
        num_images: Number of generated images. Defaults to None: not known yet.
    """
    if score == 'is' and not extractor.has_logits:
        return f'{extractor.name} has no class logits. Use Inception, or ClassifierFeatures with a trained head'
    counts = {'the generated images': num_images}
    if score != 'is':
        if reference is None:
            return 'there is no reference to compare with'
        if score in NEED_FEATURES and reference.without_images:
            return reference.without_images
        counts[str(reference.path)] = reference.count_for(score in NEED_FEATURES)
    few = [f'{name}: {count}' for name, count in counts.items() if count is not None and count < FEWEST[score]]
    return f'it needs at least {FEWEST[score]} images in each set; {first_few(few)}' if few else None


def score_names(score: str, extractor: FeatureExtractor, reference: Reference | None) -> dict[str, str]:
    """Keys of the values of a score, the main one first, and their short names.

    The key of a Fréchet distance to given statistics, ADM's convention, is ``fid_adm``.
    """
    short = dict(fid=['fid'], kid=['kid', 'kid_std'], prc=['precision', 'recall']).get(score, ['is', 'is_std'])
    adm = score == 'fid' and reference is not None and reference.is_adm
    return {extractor.key(f'{name}_adm' if adm else name): name for name in short}


def compute_scores(
    scores: Sequence[str],
    extractor: FeatureExtractor,
    vectors: Tensor,
    logits: Tensor | None,
    reference: Reference | None,
    kid_subset_size: int = 1000,
) -> dict[str, float]:
    """Compute scores of generated images.

    Args:
        scores: Names from :data:`SCORES`; :func:`missing_for` is None for each.
        extractor: The network.
        vectors: Features (N, D) of the generated images.
        logits: Logits (N, K), for the inception score.
        reference: What the images are compared with.
        kid_subset_size: See :func:`kernel_distance`. Defaults to 1000.

    Returns:
        Values by their names of :func:`score_names`.

    Raises:
        StatisticsError: Features are not finite, or there are too few images.
    """
    finite(vectors, extractor.name)
    found: dict[str, float] = {}
    if 'is' in scores and logits is not None:
        found.update(inception_score(finite(logits, f'{extractor.name} (logits)')))
    if reference is not None:
        others = reference.features() if any(score in NEED_FEATURES for score in scores) else None
        if 'fid' in scores:
            found['fid'] = _distance(extractor, vectors, reference)
        if 'kid' in scores and others is not None:
            found.update(kernel_distance(vectors, others, kid_subset_size))
        if 'prc' in scores and others is not None:
            found.update(precision_recall(vectors, others))
    return {name: found[value] for score in scores for name, value in score_names(score, extractor, reference).items()}


def _distance(extractor: FeatureExtractor, vectors: Tensor, reference: Reference) -> float:
    generated = FeatureStatistics(extractor.name, extractor.fingerprint)
    for batch in vectors.split(_BATCH):
        generated.update(batch)
    return frechet_distance(generated, reference.statistics())
