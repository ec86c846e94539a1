# Copyright (c) addp_mm contributors. Apache-2.0.
"""Channels of an image file as they are stored."""

from __future__ import annotations

import io
import re
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.datasets.readers.open_image import (
    LYING,
    StoredImage,
    decode_with_opencv,
    open_upright,
    put_upright,
    stored_colour,
    with_channels,
)
from addp_mm.datasets.readers.tiff_images import is_tiff, read_tiff, tiff_size

_NPY = b'\x93NUMPY'
_PNG = b'\x89PNG'
# width, height and highest value of a PGM or PPM; comments may stand between them
_PNM = re.compile(rb'P[2356]' + 3 * rb'(?:\s|#[^\n]*\n)+(\d+)')
# JPEG 2000 (ISO/IEC 15444-1, A.5.1): the first two markers, and how far behind them the depth of
# the first channel is
_CODESTREAM, _DEPTH_AT = b'\xff\x4f\xff\x51', 42
_LOOKED_UP_MODES = ('P', 'PA', 'CMYK', 'YCbCr', 'LAB', 'HSV')


def read_channels(content: bytes) -> StoredImage:
    """All channels of a file, with their own type and range, the EXIF orientation applied.

    Args:
        content: The bytes of an image file or of an ``.npy`` file.

    Returns:
        Channels (bands, pages) in the file's order.

    Raises:
        ValueError: The file is damaged, or of an unknown kind.
    """
    if is_array(content):
        return StoredImage(_read_array(content), 0)
    if is_tiff(content):
        return read_tiff(content)
    image = open_upright(content)
    if image is None:
        return stored_colour(decode_with_opencv(content))
    if image.mode in _LOOKED_UP_MODES or 'transparency' in image.info:
        return StoredImage(None, 3)
    highest = _highest_value(content)
    if image.mode in ('RGB', 'RGBA') and highest > 255:
        # of colours of 16 bits Pillow keeps eight
        values = put_upright(decode_with_opencv(content), _orientation(content))
        if values.dtype == np.uint16 and values.shape[2] == len(image.mode):
            return stored_colour(values if highest == 65535 else _stretched(values, highest))
    values = with_channels(np.asarray(image))
    # Pillow's mode of 32 bits, for what has 16
    return stored_colour(values.astype(np.uint16) if image.mode == 'I' and 255 < highest <= 65535 else values)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image with its EXIF orientation applied, from the head of the file alone.

    Args:
        path: Of an image file or an ``.npy`` file.

    Returns:
        None where the head is damaged, or of a kind that neither Pillow nor NumPy knows.
    """
    try:
        if path.suffix.lower() == '.npy':
            height, width = np.load(path, mmap_mode='r').shape[:2]
            return height, width
        with open(path, 'rb') as file:
            if is_tiff(file.read(4)):  # also of bands that Pillow does not know
                with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                    return tiff_size(content)
            image = Image.open(file)
            # PNG's own getexif would decode the image
            lying = Image.Image.getexif(image).get(0x0112) in LYING
            return image.size if lying else image.size[::-1]
    except Exception:  # whatever Pillow's plugins raise on odd files; decoding them tells what is wrong
        return None


def is_array(content: bytes) -> bool:
    return content.startswith(_NPY)


def _highest_value(content: bytes) -> int:
    """What white is in a PNG, PGM, PPM or JPEG 2000 file; 255 for all others."""
    if content.startswith(_PNG):
        return 2 ** content[24] - 1
    if found := _PNM.match(content[:1024]):
        return int(found[3])
    at = content.find(_CODESTREAM, 0, 4096)
    return 2 ** ((content[at + _DEPTH_AT] & 0x7F) + 1) - 1 if at >= 0 else 255


def _stretched(values: np.ndarray, highest: int) -> np.ndarray:
    """Over all 16 bits, as Pillow does with grey."""
    return np.rint(values * (65535 / highest)).clip(0, 65535).astype(np.uint16)


def _orientation(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return image.getexif().get(0x0112, 1)


def _read_array(content: bytes) -> np.ndarray:
    try:
        # no pickles: they would run whatever a file says
        return with_channels(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(str(error)) from error
