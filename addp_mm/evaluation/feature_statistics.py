# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mean and covariance of features, updated batch by batch, and their Fréchet distance."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.errors import UserError, first_few
from addp_mm.safe_files.arrays import read_npz

_FIELDS = ('mu', 'sigma', 'count', 'extractor', 'fingerprint')


class StatisticsError(UserError, ValueError):
    """Statistics that cannot be read or compared."""


class FeatureStatistics:
    """Mean and covariance of features in float64, computed in one pass; features are not kept.

    Batches are joined by the pairwise update of Chan, Golub and LeVeque (1979), which is exact up
    to rounding.

    Args:
        extractor: Name of the network that the features come from.
        fingerprint: Fingerprint of the network, its weights and its preprocessing.

    Attributes:
        count: Number of images so far.
        mean: (C); empty while there are no images.
        scatter: (C, C), sum of the outer products of the deviations from the mean.

    Example:
        >>> statistics = FeatureStatistics('identity', '')
        >>> statistics.update(torch.tensor([[0., 1.], [2., 1.]]))
        >>> statistics.mean.tolist(), statistics.covariance.tolist()
        ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, extractor: str, fingerprint: str) -> None:
        self.extractor, self.fingerprint = extractor, fingerprint
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """Covariance (C, C): ``scatter / (count - 1)``.

        Raises:
            StatisticsError: There are fewer than two images.
        """
        if self.count < 2:
            raise StatisticsError(f'a covariance needs at least two images, got {self.count}')
        return self.scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add features (B, C).

        Raises:
            ValueError: They are not vectors.
            StatisticsError: They are not finite.
        """
        if features.dim() != 2:
            raise ValueError(f'features must have the shape (B, C), got {tuple(features.shape)}')
        if len(features) == 0:
            return
        features = features.detach().cpu().double()
        mean = features.mean(0)
        if not mean.isfinite().all():
            raise StatisticsError(f'features of {self.extractor} are not finite. Check the images and the weights')
        deviations = features - mean
        scatter = deviations.t() @ deviations
        if self.count == 0:
            self.count, self.mean, self.scatter = len(features), mean, scatter
            return
        total = self.count + len(features)
        step = mean - self.mean
        self.scatter += scatter + torch.outer(step, step) * (self.count * len(features) / total)
        self.mean += step * (len(features) / total)
        self.count = total

    def save(self, path: str | os.PathLike) -> None:
        """Write a .npz file: ``mu``, ``sigma``, ``count``, ``extractor`` and ``fingerprint``."""
        # np.savez would append .npz to a path, but not to the name of an open file.
        with atomic_path(path) as partial, partial.open('wb') as file:
            np.savez(
                file,
                mu=self.mean.numpy(),
                sigma=self.covariance.numpy(),
                count=self.count,
                extractor=self.extractor,
                fingerprint=self.fingerprint,
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureStatistics:
        """Read a file that :meth:`save` wrote.

        Raises:
            StatisticsError: The file does not exist or was not written by :meth:`save`.
        """
        values = _read(
            path, _FIELDS, 'Without them the network of the statistics is unknown, and they cannot be compared.'
        )
        try:
            self = cls(str(values['extractor']), str(values['fingerprint']))
            self.count = int(values['count'])
        except (SystemError, TypeError, ValueError, OverflowError) as error:  # numpy does not look at the characters
            raise StatisticsError(f'{path} is damaged ({error}). {_HOW_TO_WRITE}') from error
        self.mean, covariance = _mean_and_covariance(path, values)
        self.scatter = covariance * (self.count - 1)
        return self


@dataclass(frozen=True)
class GivenStatistics:
    """Mean and covariance from the file of another project, which does not name its network.

    Args:
        mean: (D), float64.
        covariance: (D, D), float64.
        extractor: Name of the network that they are taken to be from.
        fingerprint: Its fingerprint.
        count: Number of images. Defaults to None: unknown.
    """

    mean: Tensor
    covariance: Tensor
    extractor: str
    fingerprint: str
    count: int | None = None

    @classmethod
    def load(cls, path: str | os.PathLike, extractor: str, fingerprint: str) -> GivenStatistics:
        """Read ``mu`` (D) and ``sigma`` (D, D) of a .npz file.

        Raises:
            StatisticsError: They are missing, damaged, or not a mean and a covariance.
        """
        values = _read(path, ('mu', 'sigma'), 'They are needed for a Fréchet distance.')
        mean, covariance = _mean_and_covariance(path, values)
        return cls(mean, covariance, extractor, fingerprint)


def _mean_and_covariance(path: str | os.PathLike, values: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    """``mu`` (D) and ``sigma`` (D, D) in float64.

    Raises:
        StatisticsError: They are not numbers, not finite, or of other shapes.
    """
    try:
        arrays = [torch.from_numpy(np.asarray(values[key], np.float64)) for key in ('mu', 'sigma')]
    except (TypeError, ValueError) as error:
        raise StatisticsError(f'{path}: mu or sigma does not hold numbers ({error}). {_HOW_TO_WRITE}') from error
    mean, covariance = arrays
    if mean.dim() != 1 or tuple(covariance.shape) != (len(mean), len(mean)):
        raise StatisticsError(
            f'{path}: mu must be (D) and sigma (D, D), got {tuple(mean.shape)} and {tuple(covariance.shape)}'
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise StatisticsError(f'{path}: mu or sigma is not finite (NaN or Inf). Download or write the file again.')
    return mean, covariance


def _read(path: str | os.PathLike, fields: Sequence[str], why: str) -> dict[str, np.ndarray]:
    """Arrays of a .npz file.

    Raises:
        StatisticsError: The file does not exist, is damaged, or lacks an array.
    """
    if not os.path.isfile(path):
        raise StatisticsError(f'{path} does not exist. {_HOW_TO_WRITE}')
    try:
        has, values = read_npz(path, fields)
    except Exception as error:  # zipfile and numpy raise many types of errors for a damaged file
        raise StatisticsError(
            f'{path} is not a .npz file of statistics, or it is damaged ({error}). {_HOW_TO_WRITE}'
        ) from error
    missing = [field for field in fields if field not in values]
    if missing:
        raise StatisticsError(f'{path} has no {", ".join(missing)}; it has {first_few(has)}. {why} {_HOW_TO_WRITE}')
    return values


Statistics = FeatureStatistics | GivenStatistics
_HOW_TO_WRITE = 'Give a folder of images, or write the file: addp evaluate-images IMAGES --statistics FILE'


def require_same_extractor(a: Statistics, b: Statistics, what: str = 'statistics') -> None:
    """Refuse to compare statistics whose features come from different networks.

    Raises:
        StatisticsError: The fingerprints differ.
    """
    if a.fingerprint != b.fingerprint:
        raise StatisticsError(
            f'{what} cannot be compared: the extractors {a.extractor} (fingerprint {a.fingerprint[:12]}) and '
            f'{b.extractor} ({b.fingerprint[:12]}) differ in network, weights or preprocessing. Use the same '
            'extractor for both.'
        )


def frechet_distance(statistics_a: Statistics, statistics_b: Statistics) -> float:
    """Squared Fréchet distance of two Gaussians: ``|m - n|² + tr(A + B - 2 (A B)^½)``.

    Source: FID, arXiv 1706.08500, eq. 6. The trace of the root is computed as that of
    ``(A^½ B A^½)^½``. Its eigenvalues are real and not negative, also for singular covariances,
    which few images give. If there are not more images than features, the distance is biased
    upwards, and a warning is logged.

    Args:
        statistics_a: Statistics of one set of images.
        statistics_b: Statistics of the other set, by the same extractor.

    Returns:
        The distance, at least 0; 0 up to rounding for equal statistics.

    Raises:
        StatisticsError: The extractors differ, or a set has fewer than two images.
    """
    require_same_extractor(statistics_a, statistics_b)
    for statistics in (statistics_a, statistics_b):
        _warn_of_few_images(statistics)
    a, b = statistics_a.covariance, statistics_b.covariance
    step = statistics_a.mean - statistics_b.mean
    root = _root(a)
    product = root @ b @ root
    overlap = torch.linalg.eigvalsh((product + product.t()) / 2).clamp_min(0).sqrt().sum()
    return max(0.0, float(step @ step + a.trace() + b.trace() - 2 * overlap))


def _root(matrix: Tensor) -> Tensor:
    """Symmetric root of a covariance (C, C). Eigenvalues below 0, due to rounding, become 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.t()


def _warn_of_few_images(statistics: Statistics) -> None:
    if statistics.count is not None and 2 <= statistics.count <= len(statistics.mean):
        print_log(
            f'{statistics.count} images are few for {len(statistics.mean)} features of {statistics.extractor}: their '
            'covariance is singular, and the Fréchet distance is biased upwards. Compare it only with distances of '
            'the same number of images. Published FIDs use 10000 to 50000 images.',
            logger='current',
            level=logging.WARNING,
        )
