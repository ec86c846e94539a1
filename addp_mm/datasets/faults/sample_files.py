# Copyright (c) addp_mm contributors. Apache-2.0.
"""The name and the files of a sample, and whether one of its files causes an error."""

from __future__ import annotations

import os
from typing import Any

import cv2
from mmengine import fileio

from addp_mm.datasets.listed.broken_images import is_broken_image
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.readers.read_image import read_image

# What mmcv's transforms raise on an image that OpenCV did not decode: it is None.
_OF_NO_IMAGE = (AssertionError, AttributeError, TypeError, cv2.error)


def sample_name(dataset: Any, index: int) -> str:
    """Name of a sample for messages: its image file if the dataset has one.

    Args:
        dataset: Any dataset with indices.
        index: Number of the sample.
    """
    try:
        if hasattr(dataset, 'path_of'):  # datasets of addp_mm
            return dataset.path_of(int(index))
        files = sample_files(dataset, index)
    except Exception:  # the dataset may be of any class, and the name is only part of another error
        files = []
    return files[0] if files else f'sample {int(index)} of {type(dataset).__name__}'


def sample_files(dataset: Any, index: int) -> list[str]:
    """Files of a sample of mmengine's BaseDataset: the image, the label map and others.

    Returns:
        Their paths; [] for other datasets.
    """
    if not hasattr(dataset, 'get_data_info') or hasattr(dataset, 'path_of'):
        return []
    info = dataset.get_data_info(int(index))
    return [value for key, value in info.items() if key.endswith('_path') and isinstance(value, str)]


def fault_of(dataset: Any, index: int, error: Exception) -> str | None:
    """What is wrong with the files of a sample, if they cause an error.

    Errors of the program and the config are not faults of a sample: an error of an unknown kind
    counts only if one of the sample's files cannot be decoded.

    Args:
        dataset: The dataset.
        index: Number of the sample.
        error: The error that reading it raised.

    Returns:
        The reason, which names the file; None if the sample is not broken.
    """
    if is_broken_image(error):
        reason, name = str(error), sample_name(dataset, index)
        named = name in reason or getattr(error, 'filename', None)
        return reason if named else f'{name}: {getattr(error, "strerror", None) or reason}'
    if isinstance(error, MemoryError):
        return None
    try:
        files = sample_files(dataset, index)
    except Exception:  # the first error is the one to show
        return None
    return next((f'{path}: {damage}' for path in files if (damage := _damage(path, error))), None)


def _damage(path: str, error: Exception) -> str | None:
    """Why a file cannot be decoded; None if it can, or if it is not known to be an image."""
    if os.path.splitext(path)[1].lower() not in EXTENSIONS:
        return None
    try:
        content = fileio.get(path)
        read_image(content)
    except ValueError as reason:
        return f'cannot be read as an image ({reason})'
    except Exception as reason:
        return str(reason) if is_broken_image(reason) else None
    # other decoders read more formats than OpenCV does
    if isinstance(error, _OF_NO_IMAGE) and not cv2.haveImageReader(path) and not path.lower().endswith('.npy'):
        return f'OpenCV cannot read it as an image ({type(error).__name__}: {error})'
    return None
