# Copyright (c) addp_mm contributors. Apache-2.0.
"""What generated images are compared with: images, or statistics of their features."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from addp_mm.evaluation.feature_cache import PART, CachedFeatures, extract
from addp_mm.evaluation.feature_extractors import FeatureExtractor
from addp_mm.evaluation.feature_statistics import (
    FeatureStatistics,
    GivenStatistics,
    Statistics,
    StatisticsError,
    require_same_extractor,
)
from addp_mm.evaluation.image_sets import ARRAY, ImageSet, open_images

_FORMS = (
    f'Give a folder of images, a .npz file with images in {ARRAY}, with mu and sigma as ADM writes them, or one that '
    'addp evaluate-images --statistics wrote'
)


class Reference:
    """The reference of a Fréchet distance, of KID, and of precision and recall.

    Distances to different references are not comparable, so that ``convention`` names the kind:

    - Images in a folder, or in ``arr_0`` of a .npz file: ADDP and MAGE compare with the 256 px
      validation images of ImageNet. The features are computed, and cached.
    - ``mu`` and ``sigma`` in a .npz file, as ADM published them for the training images of
      ImageNet: RCG and MAR compare with these. They are taken to be of FID's Inception. ADM's
      reference batches also hold 10,000 images in ``arr_0``, which are used for KID, precision and
      recall only.
    - Statistics that ``addp evaluate-images --statistics`` wrote, of the same extractor.

    Args:
        path: Folder or .npz file.
        extractor: The network of the generated images' features.
        img_size: Side to which images are resized; see
            :class:`~addp_mm.evaluation.image_sets.ImageSet`. Defaults to None.
        cache_dir: Folder of cached features; None: they are not kept. Defaults to None.
        batch_size: Images in a batch. Defaults to 64.
        device: Device of the network. Defaults to 'cpu'.

    Attributes:
        images: The images; None if there are only statistics.

    Raises:
        UserError: There is no reference there, or it is of another extractor.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        extractor: FeatureExtractor,
        img_size: int | None = None,
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.path, self.extractor = path, extractor
        names = _arrays(path)
        self._given = self._read_statistics(names)
        self._statistics: Statistics | None = self._given
        self._features: Tensor | None = None
        self.images: ImageSet | None = None
        if names is None or f'{ARRAY}.npy' in names:
            self.images = open_images(path, img_size)
            folder = None if cache_dir is None else Path(cache_dir).expanduser()
            self._cached = CachedFeatures(self.images, extractor, folder, batch_size, device)
        elif self._given is None:
            raise StatisticsError(f'{path} holds neither images nor statistics. {_FORMS}.')

    @property
    def is_adm(self) -> bool:
        """Whether mean and covariance come from a file that does not name their network."""
        return isinstance(self._given, GivenStatistics)

    @property
    def convention(self) -> str:
        """What generated images are compared with, in words."""
        if isinstance(self._given, GivenStatistics):
            others = ', and its images for the rest' if self.images else ''
            return f'given statistics (mu and sigma; convention of ADM, RCG and MAR){others}'
        if self._given is not None:
            return f'statistics of {self._given.count} images (as of a folder; convention of ADDP and MAGE)'
        size = f' resized to {self.images.img_size} px' if self.images and self.images.img_size else ''
        return f'{len(self.images or ())} images{size} (convention of ADDP and MAGE)'

    @property
    def without_images(self) -> str | None:
        """Why there are no features, in words; None if there are images."""
        if self.images is not None:
            return None
        return (
            f'{self.path} holds statistics only, which serve for the Fréchet distance. KID, precision and recall need '
            f'images: give a folder, or a .npz file with {ARRAY}'
        )

    def count_for(self, with_features: bool) -> int | None:
        """Number of images of :meth:`features`, or of :meth:`statistics`; None: not known."""
        if self.images is not None and (with_features or self._given is None):
            return len(self.images)
        return None if self._given is None else self._given.count

    def prepare(self, with_features: bool) -> None:
        """Compute the features that are missing in the cache; all processes must call it.

        Args:
            with_features: Whether :meth:`features` will be called, not only :meth:`statistics`.
        """
        if self.images is not None and (with_features or self._given is None):
            self._cached.prepare()

    def statistics(self) -> Statistics:
        """Mean and covariance of the features."""
        if self._statistics is None:
            self._statistics = FeatureStatistics(self.extractor.name, self.extractor.fingerprint)
            for vectors in self._cached if self._features is None else self._features.split(PART):
                self._statistics.update(vectors)
        return self._statistics

    def features(self) -> Tensor:
        """Features (N, D) of the images, float32.

        Raises:
            StatisticsError: There are only statistics.
        """
        if self.without_images:
            raise StatisticsError(self.without_images)
        if self._features is None:
            self._features = torch.cat(list(self._cached))
        return self._features

    def _read_statistics(self, names: list[str] | None) -> Statistics | None:
        if names is None or 'mu.npy' not in names:
            return None
        network = self.extractor
        own = FeatureStatistics(network.name, network.fingerprint)
        if 'fingerprint.npy' in names:
            stored = FeatureStatistics.load(self.path)
            require_same_extractor(own, stored, f'{self.path}: statistics of the images and of the file')
            return stored
        if network.is_inception:
            return self._of_inception(GivenStatistics.load(self.path, network.name, network.fingerprint))
        if f'{ARRAY}.npy' in names:
            return None  # the images have features of this network
        raise StatisticsError(
            f"{self.path} has mu and sigma but not their network, so they are taken to be of FID's Inception, and the "
            f'features here are of {network.name}. {_FORMS}.'
        )

    def _of_inception(self, given: GivenStatistics) -> GivenStatistics:
        if self.extractor.dims not in (None, len(given.mean)):
            raise StatisticsError(
                f"{self.path} has statistics of {len(given.mean)} features, and FID's Inception gives "
                f'{self.extractor.dims}. {_FORMS}.'
            )
        return given


def folder_statistics(
    folder: str | os.PathLike,
    extractor: FeatureExtractor,
    img_size: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = 'cpu',
) -> FeatureStatistics:
    """Statistics of the features of all images of a folder, or of a .npz file with images.

    Nothing is cached, and features are not kept.

    Args:
        folder: Folder with images, or .npz file with ``arr_0``.
        extractor: Network that gives the features.
        img_size: See :class:`~addp_mm.evaluation.image_sets.ImageSet`. Defaults to None.
        batch_size: Number of images in a batch. Defaults to 64.
        device: Device of the network. Defaults to 'cpu'.

    Raises:
        UserError: There are no images, or one cannot be read.
    """
    images = open_images(folder, img_size)
    statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
    for vectors, _ in extract(images, extractor, batch_size=batch_size, device=device):
        statistics.update(vectors)
    images.warn()
    return statistics


def _arrays(path: str | os.PathLike) -> list[str] | None:
    """Names of the arrays in a .npz file; None for a folder.

    Raises:
        StatisticsError: There is no such folder or file.
    """
    if os.path.isdir(path):
        return None
    if not os.path.exists(path):
        raise StatisticsError(f'{path} does not exist. {_FORMS}.')
    try:
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    except Exception as error:  # zipfile raises many types of errors for a damaged file
        raise StatisticsError(
            f'{path} is neither a folder nor a .npz file, or it is damaged ({error}). {_FORMS}.'
        ) from error
