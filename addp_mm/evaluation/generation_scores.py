# Copyright (c) addp_mm contributors. Apache-2.0.
"""Scores of generated images from their features, through torch-fidelity."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from mmengine.logging import print_log
from torch import Tensor

from addp_mm.errors import UserError
from addp_mm.evaluation.feature_statistics import StatisticsError

_SPLITS, _SUBSETS, _NEIGHBOURS = 10, 100, 3
#: Images that each set needs at least, by the name of the score.
FEWEST = {'fid': 2, 'is': _SPLITS, 'kid': 2, 'prc': _NEIGHBOURS + 1}
# rows of distances in memory at a time; the values do not depend on it
_ROWS = 2000


def inception_score(logits: Tensor) -> dict[str, float]:
    """Inception score (arXiv 1606.03498) of logits (N, K): mean and deviation of ten parts.

    Raises:
        StatisticsError: There are fewer than ten images.
    """
    _require_torch_fidelity('IS')
    if len(logits) < _SPLITS:
        raise StatisticsError(f'IS is the mean of {_SPLITS} parts, and there are only {len(logits)} images')
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = isc_features_to_metric(logits, splits=_SPLITS)
    return {'is': found[KEY_METRIC_ISC_MEAN], 'is_std': found[KEY_METRIC_ISC_STD]}


def kernel_distance(generated: Tensor, reference: Tensor, subset_size: int = 1000) -> dict[str, float]:
    """KID (arXiv 1801.01401): unbiased estimate with the cubic kernel, over 100 random subsets.

    Args:
        generated: Features (N, D).
        reference: Features (M, D).
        subset_size: Images in a subset. With fewer images, all of the smaller set, and a warning is
            logged. Defaults to 1000.

    Returns:
        Mean and deviation over the subsets; the mean of equal distributions is 0, and a value may
        be negative.

    Raises:
        StatisticsError: A set has fewer than two images.
    """
    _require_torch_fidelity('KID')
    fewest = min(len(generated), len(reference))
    if fewest < 2:
        raise StatisticsError(f'KID needs at least two images in each set, got {fewest}')
    if fewest < subset_size:
        print_log(
            f'KID: subsets of {fewest} images, because one set has no more than these; {subset_size} were asked for, '
            'and papers use 1000',
            logger='current',
            level=logging.WARNING,
        )
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(
        generated, reference, kid_subsets=_SUBSETS, kid_subset_size=min(fewest, subset_size), verbose=False
    )
    return {'kid': found[KEY_METRIC_KID_MEAN], 'kid_std': found[KEY_METRIC_KID_STD]}


def precision_recall(generated: Tensor, reference: Tensor) -> dict[str, float]:
    """Improved precision and recall (arXiv 1904.06991) with three nearest neighbours.

    Args:
        generated: Features (N, D).
        reference: Features (M, D).

    Returns:
        Share of generated images that lie among the reference, and of reference images that lie
        among the generated ones.

    Raises:
        StatisticsError: A set has no more than three images.
    """
    _require_torch_fidelity('precision and recall')
    fewest = min(len(generated), len(reference))
    if fewest <= _NEIGHBOURS:
        raise StatisticsError(
            f'precision and recall use {_NEIGHBOURS} neighbours and need more images than these in a set, got {fewest}'
        )
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(
        generated, reference, prc_neighborhood=_NEIGHBOURS, prc_batch_size=_ROWS, save_cpu_ram=True, verbose=False
    )
    return {'precision': found[KEY_METRIC_PRECISION], 'recall': found[KEY_METRIC_RECALL]}


def _require_torch_fidelity(what: str) -> None:
    if find_spec('torch_fidelity') is None:
        raise UserError(f"{what}: torch-fidelity is not installed. Type\n    pip install 'addp_mm[fidelity]'")
