# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mean and covariance of features, gathered batch by batch, and the Fréchet distance of two of them."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from addp_mm.errors import UserError

_FIELDS = ('mu', 'sigma', 'count', 'extractor', 'fingerprint')


class StatisticsError(UserError, ValueError):
    """Statistics that cannot be read or compared; the message says which and what to do."""


class FeatureStatistics:
    """Mean and covariance of features, float64, in one pass and without keeping the features.

    Batches and the shares of several processes are joined by the pairwise update of Chan, Golub and
    LeVeque (1979), which is exact but for rounding.

    Args:
        extractor: Name of the network that the features come from.
        fingerprint: What tells this network, its weights and the way images enter it from every
            other.

    Attributes:
        count (int): Images so far.
        mean (Tensor | None): (C).
        scatter (Tensor | None): (C, C), sum of the outer products of the deviations from the mean.

    Example:
        >>> statistics = FeatureStatistics('identity', '')
        >>> statistics.update(torch.tensor([[0., 1.], [2., 1.]]))
        >>> statistics.mean.tolist(), statistics.covariance.tolist()
        ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, extractor: str, fingerprint: str) -> None:
        self.extractor, self.fingerprint = extractor, fingerprint
        self.count = 0
        self.mean: Tensor | None = None
        self.scatter: Tensor | None = None

    @property
    def covariance(self) -> Tensor:
        """(C, C), divided by count - 1.

        Raises:
            StatisticsError: If there are fewer than two images.
        """
        if self.count < 2:
            raise StatisticsError(f'a covariance needs at least two images; features of {self.count} were given')
        return self.scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add features (B, C).

        Raises:
            ValueError: If they are no vectors, or not finite.
        """
        if features.dim() != 2:
            raise ValueError(f'features must be one vector an image, (B, C); got {tuple(features.shape)}')
        if len(features) == 0:
            return
        features = features.detach().double()
        mean = features.mean(0)
        if not mean.isfinite().all():
            raise ValueError(f'features of {self.extractor} are not finite: the images, or the weights, are broken')
        deviations = features - mean
        self._join(len(features), mean, deviations.t() @ deviations)

    def merge(self, other: FeatureStatistics) -> None:
        """Add all images of another, of the same extractor.

        Raises:
            StatisticsError: If it is of another extractor.
        """
        require_same_extractor(self, other)
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self.count == 0:
            self.count, self.mean, self.scatter = count, mean.clone(), scatter.clone()
            return
        total = self.count + count
        step = mean.to(self.mean) - self.mean
        self.scatter += scatter.to(self.scatter) + torch.outer(step, step) * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    def cpu(self) -> FeatureStatistics:
        """Itself, moved to the CPU."""
        if self.count:
            self.mean, self.scatter = self.mean.cpu(), self.scatter.cpu()
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Write a .npz with ``mu``, ``sigma``, ``count``, ``extractor`` and ``fingerprint``."""
        covariance = self.covariance.cpu().numpy()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('wb') as file:  # np.savez appends .npz to names without it
            np.savez(
                file,
                mu=self.mean.cpu().numpy(),
                sigma=covariance,
                count=self.count,
                extractor=self.extractor,
                fingerprint=self.fingerprint,
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureStatistics:
        """Read what :meth:`save` wrote.

        Raises:
            StatisticsError: If there is no such file, or it is no file of statistics with an
                extractor's fingerprint.
        """
        if not os.path.isfile(path):
            raise StatisticsError(f'{path}: there is no such file of statistics; {_HOW_TO_WRITE}')
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [field for field in _FIELDS if field not in file]
                values = {field: file[field] for field in _FIELDS if field in file}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
            raise StatisticsError(
                f'{path} is no .npz of statistics, or it is damaged ({error}); {_HOW_TO_WRITE}'
            ) from error
        if missing:
            raise StatisticsError(
                f'{path} lacks {", ".join(missing)}: which network its statistics come from is not '
                f'known, so nothing can be compared with them; {_HOW_TO_WRITE}'
            )
        self = cls(str(values['extractor']), str(values['fingerprint']))
        self.count = int(values['count'])
        self.mean = torch.from_numpy(values['mu'].astype(np.float64))
        self.scatter = torch.from_numpy(values['sigma'].astype(np.float64)) * (self.count - 1)
        return self


_HOW_TO_WRITE = 'write it from images by tools/analysis_tools/frechet_distance.py IMAGES --save FILE'


def require_same_extractor(a: FeatureStatistics, b: FeatureStatistics, what: str = 'statistics') -> None:
    """Refuse two statistics whose features come from different networks.

    Raises:
        StatisticsError: If they do.
    """
    if a.fingerprint != b.fingerprint:
        raise StatisticsError(
            f'{what} of {a.extractor} (fingerprint {a.fingerprint[:12]}) and of {b.extractor} '
            f'({b.fingerprint[:12]}) cannot be compared: the networks, their weights or the way images enter them '
            'differ. Make both with the same extractor.'
        )


def frechet_distance(statistics_a: FeatureStatistics, statistics_b: FeatureStatistics) -> float:
    """Squared Fréchet distance of two Gaussians: |m - n|² + tr(A + B - 2 (A B)^½) (FID, arXiv 1706.08500, eq. 6).

    The trace of the root is that of (A^½ B A^½)^½, whose eigenvalues are real and not negative, so
    that singular covariances, as few images give, do no harm. With no more images than features the
    distance is biased upwards, and a warning says so.

    Args:
        statistics_a: Of one set of images.
        statistics_b: Of the other, by the same extractor.

    Returns:
        Not negative; 0 for equal statistics, up to rounding.

    Raises:
        StatisticsError: If the extractors differ, or a set has fewer than two images.
    """
    require_same_extractor(statistics_a, statistics_b)
    for statistics in (statistics_a, statistics_b):
        _warn_of_few_images(statistics)
    a, b = statistics_a.covariance, statistics_b.covariance.to(statistics_a.covariance)
    step = statistics_a.mean - statistics_b.mean.to(a)
    root = _root(a)
    product = root @ b @ root
    overlap = torch.linalg.eigvalsh((product + product.t()) / 2).clamp_min(0).sqrt().sum()
    return max(0.0, float(step @ step + a.trace() + b.trace() - 2 * overlap))


def _root(matrix: Tensor) -> Tensor:
    """Symmetric root of a covariance (C, C); eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.t()


def _warn_of_few_images(statistics: FeatureStatistics) -> None:
    if 2 <= statistics.count <= len(statistics.mean):
        print_log(
            f'{statistics.count} images are few for {len(statistics.mean)} features of {statistics.extractor}: their '
            'covariance is singular and the Fréchet distance biased upwards. Compare it only with distances from as '
            'many images; published FIDs are from 10000 to 50000.',
            logger='current',
            level=logging.WARNING,
        )
