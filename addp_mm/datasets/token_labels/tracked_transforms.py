# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's transforms, which also record what part of the image is left.

It imports mmpretrain, so only :mod:`~addp_mm.datasets.token_labels.with_token_labels` imports it,
when a pipeline is built.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, RandomFlip, Resize
from mmpretrain.datasets.transforms import (
    EfficientNetRandomCrop,
    RandAugment,
    RandomCrop,
    RandomResizedCrop,
    ResizeEdge,
    Rotate,
    Shear,
    Translate,
)

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.token_labels.view import VIEW, crop_matrix, flip_matrix, warp_matrix
from addp_mm.errors import first_few
from addp_mm.registry import TRANSFORMS

# Parts of the names of transforms that move pixels.
_MOVING = ('crop', 'flip', 'rotat', 'shear', 'translat', 'affine', 'perspective', 'elastic', 'pad', 'autoaugment')


class _RecordsCrop(BaseTransform):
    """Records the crop of ``rand_crop_params``."""

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        self._crop = super().rand_crop_params(img)
        return self._crop

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        results = super().transform(results)
        results[VIEW] = results[VIEW] @ crop_matrix(self._crop, height, width)
        return results


class TrackedRandomResizedCrop(_RecordsCrop, RandomResizedCrop):
    """RandomResizedCrop that changes the view."""


class TrackedEfficientNetRandomCrop(_RecordsCrop, EfficientNetRandomCrop):
    """EfficientNetRandomCrop that changes the view."""


class TrackedRandomCrop(_RecordsCrop, RandomCrop):
    """RandomCrop that changes the view. It cannot pad."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.padding is not None or self.pad_if_needed:
            raise DatasetError('RandomCrop with padding cannot carry token labels. Leave padding and pad_if_needed out')


class TrackedRandomFlip(RandomFlip):
    """RandomFlip that changes the view."""

    def transform(self, results: dict) -> dict:
        """Flip the image."""
        results = super().transform(results)
        if results['flip']:
            results[VIEW] = results[VIEW] @ flip_matrix(results['flip_direction'])
        return results


class _RecordsWarp(BaseTransform):
    """Records the signed magnitude of a warp, if the warp is applied."""

    def random_negative(self, value: float) -> float:
        self._magnitude = super().random_negative(value)
        return self._magnitude

    @abstractmethod
    def _warp(self, height: int, width: int) -> np.ndarray:
        """Matrix (2, 3) of the warp, from pixels of the result to those of the image."""

    def transform(self, results: dict) -> dict:
        self._magnitude = None
        results = super().transform(results)
        if self._magnitude is not None:
            height, width = results['img'].shape[:2]
            results[VIEW] = results[VIEW] @ warp_matrix(self._warp(height, width), height, width)
        return results


class TrackedRotate(_RecordsWarp, Rotate):
    """Rotate that changes the view."""

    def _warp(self, height: int, width: int) -> np.ndarray:
        return cv2.getRotationMatrix2D(
            self.center or ((width - 1) / 2, (height - 1) / 2), -self._magnitude, self.scale
        )  # the angle of mmcv is clockwise


class TrackedShear(_RecordsWarp, Shear):
    """Shear that changes the view."""

    def _warp(self, height: int, width: int) -> np.ndarray:  # noqa: ARG002  # a share of the other side
        horizontal = self.direction == 'horizontal'
        return np.array([[1, self._magnitude * horizontal, 0], [self._magnitude * (not horizontal), 1, 0]])


class TrackedTranslate(_RecordsWarp, Translate):
    """Translate that changes the view."""

    def _warp(self, height: int, width: int) -> np.ndarray:
        horizontal = self.direction == 'horizontal'
        x, y = (self._magnitude * width, 0) if horizontal else (0, self._magnitude * height)
        return np.array([[1, 0, x], [0, 1, y]], float)


class TrackedRandAugment(RandAugment):
    """RandAugment whose transforms change the view."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.transforms = [tracked(policy) for policy in self.policies]


_TRACKED: dict[type, type] = {
    RandomResizedCrop: TrackedRandomResizedCrop,
    EfficientNetRandomCrop: TrackedEfficientNetRandomCrop,
    RandomCrop: TrackedRandomCrop,
    RandomFlip: TrackedRandomFlip,
    Rotate: TrackedRotate,
    Shear: TrackedShear,
    Translate: TrackedTranslate,
    RandAugment: TrackedRandAugment,
}
_WHOLE_IMAGE = (Resize, ResizeEdge)  # the view stays the same


def tracked(cfg: Mapping) -> BaseTransform:
    """Build a transform that keeps ``results['view']`` up to date.

    Args:
        cfg: Config of a transform. Transforms that only change colours or erase pixels stay as
            they are.

    Raises:
        DatasetError: The transform moves pixels in a way that is not recorded.
    """
    cls: Any = cfg['type']
    if isinstance(cls, str):
        with TRANSFORMS.switch_scope_and_registry(None) as registry:
            cls = registry.get(cls)
    if cls in _TRACKED:
        return TRANSFORMS.build(dict(cfg, type=_TRACKED[cls]))
    name = getattr(cls, '__name__', str(cfg['type']))
    if cls not in _WHOLE_IMAGE and any(part in name.lower() for part in _MOVING):
        raise DatasetError(
            f'transforms of WithTokenLabels: {name} moves pixels, and token labels cannot follow it. Use '
            f'{first_few((kind.__name__ for kind in _TRACKED), 8)}, or put it outside WithTokenLabels'
        )
    return TRANSFORMS.build(dict(cfg))
