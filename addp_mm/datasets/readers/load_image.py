# Copyright (c) addp_mm contributors. Apache-2.0.
"""The transform that loads an image of any common format as three channels of eight bits."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio

from addp_mm.datasets.errors import BrokenSampleError
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.registry import TRANSFORMS


class BrokenImageError(BrokenSampleError):
    """An image file that cannot be read, or is not of the expected kind; the message names it."""


def image_content(results: dict, backend_args: dict | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        results: Sample of a pipeline. If it has ``img_bytes``, they are removed from it and
            returned; otherwise the file ``img_path`` is read.
        backend_args: Arguments of mmengine's file backend. Defaults to None: inferred from the
            path.
    """
    content = results.pop('img_bytes', None)
    return fileio.get(results['img_path'], backend_args=backend_args) if content is None else content


def load_into(results: dict, read: Callable[[bytes], np.ndarray], backend_args: dict | None) -> dict:
    """Read the image of a sample and add ``img``, ``img_shape`` and ``ori_shape``.

    Args:
        results: Sample of a pipeline, see :func:`image_content`.
        read: Converts the bytes to an array (H, W, C); raises a ValueError if it cannot.
        backend_args: Arguments of mmengine's file backend; None infers it from the path.

    Returns:
        ``results``. RGB is reversed to BGR, as the transforms of mmcv expect.

    Raises:
        BrokenImageError: The image cannot be read.
    """
    content = image_content(results, backend_args)
    try:
        image = read(content)
    except ValueError as error:
        raise BrokenImageError(
            f'{results["img_path"]}: cannot be read as an image ({error}). Replace or remove it.'
        ) from error
    # numpy's copy of reversed channels takes as long as half of the decoding of a JPEG file
    results['img'] = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else np.ascontiguousarray(image)
    results['img_shape'] = results['ori_shape'] = image.shape[:2]
    return results


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image as BGR of eight bits. It replaces mmcv's ``LoadImageFromFile``.

    There are three differences. A damaged file raises an error that names the file. Transparent
    pixels are blended onto white. 16-bit values are scaled. See
    :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Required keys: ``img_path``; or ``img_path`` and ``img_bytes``, the content of the file, which
    is removed; or ``img`` only, which is not changed (an inferencer has loaded it). Added keys:
    ``img`` (BGR, shape (H, W, 3), 0 to 255), ``img_shape`` and ``ori_shape`` (H, W).

    Args:
        to_float32: Whether ``img`` is float32 instead of uint8. Defaults to False.
        backend_args: Arguments of mmengine's file backend. Defaults to None: inferred from the
            path.

    Raises:
        FileNotFoundError: The file does not exist.
        BrokenImageError: The file cannot be decoded. It is a ValueError.
    """

    def __init__(self, to_float32: bool = False, backend_args: dict | None = None) -> None:
        self.to_float32 = to_float32
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load the image of ``results``. For the keys see the class."""
        if 'img_path' not in results and 'img' in results:
            return results
        results = load_into(results, read_rgb, self.backend_args)
        if self.to_float32:
            results['img'] = results['img'].astype(np.float32)
        return results
