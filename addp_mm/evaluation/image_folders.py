# Copyright (c) addp_mm contributors. Apache-2.0.
"""Feature statistics of the images in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from PIL import Image

from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.errors import UserError
from addp_mm.evaluation.feature_extractors import FeatureExtractor
from addp_mm.evaluation.feature_statistics import FeatureStatistics

_JPEG = ('.jpg', '.jpeg')
_EXTENSIONS = (*_JPEG, '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')


def folder_statistics(
    folder: str | os.PathLike,
    extractor: FeatureExtractor,
    img_size: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = 'cpu',
) -> FeatureStatistics:
    """Statistics of the features of all images in a folder and its subfolders, as RGB of 8 bits.

    Args:
        folder: Folder of images; files of other types are ignored.
        extractor: Network that gives the features.
        img_size: Side in pixels to which images are resized first, in memory: the shorter side is
            resized (bicubic, antialiased), then the centre is cropped. Defaults to None: the images
            keep their size.
        batch_size: Number of images in a batch. Defaults to 64.
        device: Device of the network. Defaults to 'cpu'.

    Raises:
        UserError: There are no images, or one cannot be read.
    """
    paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in _EXTENSIONS)
    if not paths:
        raise UserError(f'{folder} has no images (files that end in {", ".join(_EXTENSIONS)})')
    if img_size is None and any(path.suffix.lower() in _JPEG for path in paths):
        print_log(
            f'{folder} has JPEG files. If they were resized and saved as JPEG, the compression changes the distance '
            'by points: save as PNG, or resize the original images here (img_size).',
            logger='current',
            level=logging.WARNING,
        )
    extractor = extractor.to(device)
    statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
    for batch in _batches(paths, img_size, batch_size):
        images = torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)
        statistics.update(extractor(images))
    return statistics


def _batches(paths: Sequence[Path], img_size: int | None, batch_size: int) -> Iterator[np.ndarray]:
    """Yield batches, uint8 (B, H, W, 3), of consecutive images of one size."""
    for start in range(0, len(paths), batch_size):
        images = (_read(path, img_size) for path in paths[start : start + batch_size])
        for _, group in groupby(images, key=lambda image: image.shape):
            yield np.stack(list(group))


def _read(path: Path, img_size: int | None) -> np.ndarray:
    try:
        image = read_rgb(path)
    except ValueError as error:
        raise UserError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error
    if img_size is None or image.shape[:2] == (img_size, img_size):
        return image
    height, width = image.shape[:2]
    factor = img_size / min(height, width)
    size = (max(img_size, round(width * factor)), max(img_size, round(height * factor)))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - img_size) // 2, (resized.shape[1] - img_size) // 2
    return resized[top : top + img_size, left : left + img_size]
