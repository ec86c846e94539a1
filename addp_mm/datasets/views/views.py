# Copyright (c) addp_mm contributors. Apache-2.0.
"""Augmented views of an image. They depend on a seed and two numbers: image and view."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

AUGMENTATIONS = ('crop', 'flip', 'none')
_FILTERS = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}
INTERPOLATIONS = tuple(_FILTERS)
_ASPECTS = (3 / 4, 4 / 3)
_CROP_TRIES = 10


@dataclass(frozen=True)
class Views:
    """Creates the views of an image.

    Args:
        image_size: Side of the square views in pixels.
        count: Number of views of an image. Defaults to 1.
        augmentation: 'crop': a random resized crop, flipped with probability 0.5, as in MAGE (arXiv
            2211.09117) and ADDP (arXiv 2306.05423). 'flip': the centre square and its mirror image,
            at most two views. 'none': the centre square, one view. Defaults to 'crop'.
        crop_scale: Smallest and largest share of the image's area in a random crop, whose aspect
            ratio is 3:4 to 4:3. Defaults to (0.2, 1.0).
        interpolation: 'bicubic' or 'bilinear', both with antialiasing. Defaults to 'bicubic'.
        seed: Any non-negative integer. Defaults to 0.

    Raises:
        ValueError: A value is outside its range.
    """

    image_size: int
    count: int = 1
    augmentation: str = 'crop'
    crop_scale: tuple[float, float] = (0.2, 1.0)
    interpolation: str = 'bicubic'
    seed: int = 0

    def __post_init__(self) -> None:
        most = {'crop': math.inf, 'flip': 2, 'none': 1}.get(self.augmentation)
        if most is None or self.interpolation not in _FILTERS:
            raise ValueError(
                f'augmentation must be one of {AUGMENTATIONS} and interpolation one of {INTERPOLATIONS}, '
                f'got {self.augmentation!r} and {self.interpolation!r}'
            )
        if not 1 <= self.count <= most:
            raise ValueError(f'augmentation {self.augmentation!r} gives 1 to {most} different views, not {self.count}')
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1 or self.image_size < 1 or self.seed < 0:
            raise ValueError(
                f'crop_scale must be 0 < smallest <= largest <= 1, image_size positive and seed at least 0, got {self}'
            )

    def settings(self) -> dict:
        """The settings that determine the pixels of a view."""
        used = asdict(self)
        for key in () if self.augmentation == 'crop' else ('crop_scale', 'seed'):
            used.pop(key)
        return used

    def make(self, image: np.ndarray, index: int) -> np.ndarray:
        """Create all views of an image.

        Args:
            image: (H, W, C), 0 to 255.
            index: The image's number in its list.

        Returns:
            (count, C, image_size, image_size); uint8 if the image is uint8, else float32.
        """
        return np.stack([self._make(image, index, view).transpose(2, 0, 1) for view in range(self.count)])

    def _make(self, image: np.ndarray, index: int, view: int) -> np.ndarray:
        height, width = image.shape[:2]
        if self.augmentation == 'crop':
            rng = np.random.default_rng([self.seed, index, view])
            top, left, rows, columns = _random_box(height, width, self.crop_scale, rng)
            flip = rng.random() < 0.5
        else:
            rows = columns = min(height, width)
            top, left, flip = (height - rows) // 2, (width - columns) // 2, view == 1
        resized = _resize(image[top : top + rows, left : left + columns], self.image_size, _FILTERS[self.interpolation])
        return resized[:, ::-1] if flip else resized


def _random_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop, or of the centre crop if none fits."""
    for _ in range(_CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(_ASPECTS)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    rows, columns = min(height, round(width / _ASPECTS[0])), min(width, round(height * _ASPECTS[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _resize(image: np.ndarray, size: int, resample: Image.Resampling) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), resample))
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., k], np.float32)).resize((size, size), resample))
        for k in range(image.shape[2])
    ]
    resized = np.stack(channels, -1).clip(0, 255)
    return np.rint(resized).astype(np.uint8) if image.dtype == np.uint8 else resized
