# Copyright (c) addp_mm contributors. Apache-2.0.
"""Channels of an image file as they are stored."""
from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from importlib import import_module

import cv2
import numpy as np
from PIL import Image

from addp_mm.datasets.load_image import decode_with_opencv, open_upright

_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_NPY = b'\x93NUMPY'
# TIFF 6.0, PhotometricInterpretation: palette, CMYK, YCbCr and Lab are not the channels themselves
_LOOKED_UP = (3, 5, 6, 8)
_LOOKED_UP_MODES = ('P', 'PA', 'CMYK', 'YCbCr', 'LAB', 'HSV')
# how an image is put upright, by the value of TIFF's and EXIF's tag Orientation
_UPRIGHT = {2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
            5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
            7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: np.rot90(x)}


def read_channels(content: bytes) -> tuple[np.ndarray | None, bool]:
    """All channels of a file, with their own type and range, the EXIF orientation applied.

    Args:
        content: The bytes of an image file or of an ``.npy`` file.

    Returns:
        Shape (H, W, C) with channels (bands, pages) in the file's order, None where colours need looking up or
        computing; and whether this is an ordinary grey or colour image, not bands, pages or an array.

    Raises:
        ValueError: The file is damaged, or of an unknown kind.
    """
    if content.startswith(_NPY):
        return _read_array(content), False
    if content.startswith(_TIFF):
        return _read_tiff(content)
    image = open_upright(content)
    if image is None:
        return decode_with_opencv(content), True
    if image.mode in _LOOKED_UP_MODES or 'transparency' in image.info:
        return None, True
    if image.mode in ('RGB', 'RGBA') and content.startswith(b'\x89PNG') and content[24] == 16:
        # of colour PNGs of 16 bits Pillow keeps eight
        return put_upright(decode_with_opencv(content), _orientation(content)), True
    return _with_channels(np.asarray(image)), True


def _orientation(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return image.getexif().get(0x0112, 1)


def put_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the value of the tag Orientation to (H, W, ...)."""
    return _UPRIGHT.get(orientation, lambda x: x)(values)


def _read_array(content: bytes) -> np.ndarray:
    try:
        # no pickles: they would run whatever a file says
        return _with_channels(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(str(error)) from error


def _with_channels(values: np.ndarray) -> np.ndarray:
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f'an array of shape {values.shape}; expected (H, W) or (H, W, C)')
    return values.reshape(*values.shape[:2], -1)


def _read_tiff(content: bytes) -> tuple[np.ndarray | None, bool]:
    bands, photometric = _first_page(content)
    if photometric in _LOOKED_UP:
        return None, True
    if bands is not None and bands <= 4:
        pages = _pages_by_opencv(content)
        # OpenCV drops the second of two bands
        if pages and pages[0].shape[2] == bands:
            return _stacked(pages), len(pages) == 1
        image = open_upright(content) if not pages or len(pages) == 1 else None
        if image is not None and len(image.getbands()) == bands:
            return _with_channels(np.asarray(image)), True
    try:
        tifffile = import_module('tifffile')
    except ImportError as error:
        raise ValueError(f'a TIFF of {bands or "an unknown number of"} bands, which neither Pillow nor OpenCV reads; '
                         'pip install "addp_mm[data]" adds tifffile, which does; or the file is damaged') from error
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            pages = [_page_by_tifffile(page) for page in file.pages]
    except Exception as error:  # whatever its decoders raise on damaged files
        raise ValueError(str(error)) from error
    if not pages:
        raise ValueError('a TIFF without pages')
    return _stacked(pages), False


def _first_page(content: bytes) -> tuple[int | None, int | None]:
    """Tags SamplesPerPixel and PhotometricInterpretation of the first page; None for what cannot be read."""
    order = '<' if content[:2] == b'II' else '>'
    found = {277: None, 262: None}
    if content[2:4] not in (b'*\0', b'\0*'):
        return None, None
    try:
        start, = struct.unpack_from(f'{order}I', content, 4)
        count, = struct.unpack_from(f'{order}H', content, start)
        found[277] = 1
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f'{order}HHIH', content, start + 2 + 12 * entry)
            if tag in found:
                found[tag] = value
    except struct.error:
        return None, None
    return found[277], found[262]


def _pages_by_opencv(content: bytes) -> list[np.ndarray]:
    try:
        done, pages = cv2.imdecodemulti(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return []
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    pages = [page.reshape(*page.shape[:2], -1) for page in pages] if done else []
    return [page[..., order[page.shape[2]]] if page.shape[2] in order else page for page in pages]


def _page_by_tifffile(page) -> np.ndarray:
    values, axes = page.asarray(), page.axes
    if set(axes) - set('YXS'):
        raise ValueError(f'a page with axes {axes}; expected height, width and bands')
    if 'S' in axes:
        values = np.moveaxis(values, axes.index('S'), -1)
    orientation = page.tags.get(274)
    return put_upright(_with_channels(values), 1 if orientation is None else int(orientation.value))


def _stacked(pages: Sequence[np.ndarray]) -> np.ndarray:
    """Pages as channels. Those of another size than the first are thumbnails of it."""
    return np.concatenate([page for page in pages if page.shape == pages[0].shape], axis=-1)
