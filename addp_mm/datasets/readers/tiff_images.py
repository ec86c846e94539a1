# Copyright (c) addp_mm contributors. Apache-2.0.
"""Bands and pages of TIFF files, by whichever of three libraries reads a file's layout right."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from importlib import import_module
from mmap import mmap
from typing import NamedTuple

import cv2
import numpy as np

from addp_mm.datasets.readers.open_image import LYING, StoredImage, from_bgr, open_upright, put_upright, with_channels

_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_WHITE_IS_ZERO, _RGB = 0, 2
# TIFF 6.0, PhotometricInterpretation: palette, CMYK, YCbCr and Lab are not the channels themselves
_LOOKED_UP = (3, 5, 6, 8)
_ASSOCIATED, _UNASSOCIATED = 1, 2
# how a tag's value is unpacked, by the number of its type
_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}


class _Layout(NamedTuple):
    """Tags of the first page, by their numbers in TIFF 6.0; of those with several values the first."""

    width: int  # 256
    height: int  # 257
    orientation: int  # 274
    bands: int  # 277
    bits: int  # 258
    photometric: int  # 262
    planar: int  # 284
    extra: int  # 338
    single: bool  # no page follows

    @property
    def apart(self) -> bool:
        """Whether one band is stored after the other."""
        return self.planar == 2 and self.bands > 1

    @property
    def colour(self) -> int:
        """As of :class:`StoredImage`."""
        if self.photometric == _RGB and self.bands > 2:
            return 3
        return int(self.bands == 1 + (self.extra in (_ASSOCIATED, _UNASSOCIATED)))

    @property
    def alpha(self) -> bool:
        """Whether there is a band after the colour that the file calls alpha; near infrared is 'unspecified'."""
        return 0 < self.colour < self.bands and self.extra in (_ASSOCIATED, _UNASSOCIATED)

    @property
    def by_opencv(self) -> bool:
        """Whether OpenCV's values are the stored ones: it takes bands for pixels, and multiplies 8 bits by alpha."""
        return self.bands <= 4 and not self.apart and not (self.bits == 8 and self.extra == _UNASSOCIATED)

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow's values are the stored ones: it cuts 16 bits of colour to 8, and divides by alpha."""
        whole = self.bands == 1 or self.bits == 8 and self.extra != _ASSOCIATED
        return whole and self.single and (self.photometric == _RGB or not self.apart)


def is_tiff(content: bytes) -> bool:
    return content.startswith(_MAGIC)


def pillow_shows(content: bytes) -> bool:
    """Whether Pillow shows a TIFF as it is; bands stored apart and inverted 16 bits it may get wrong.

    Raises:
        ValueError: The file is damaged.
    """
    layout = _layout(content)
    inverted = layout.photometric == _WHITE_IS_ZERO and layout.bits > 8
    return layout.photometric in _LOOKED_UP or not (layout.apart or inverted)


def read_tiff(content: bytes) -> StoredImage:
    """All bands of a TIFF, or all its pages as channels, put upright; white is the highest value.

    Raises:
        ValueError: The file is damaged, or needs a package that is not installed.
    """
    layout = _layout(content)
    if layout.photometric in _LOOKED_UP:
        return StoredImage(None, 3)
    pages = _pages_by_opencv(content) if layout.by_opencv else []
    # of several bands that are no colour OpenCV keeps one
    if not pages or pages[0].shape[2] != layout.bands:
        pages = _page_by_pillow(content, layout.bands) if layout.by_pillow else []
    # both turn up to eight bits round, where white is zero, and no others
    turned = bool(pages) and pages[0].itemsize == 1
    pages = pages or _pages_by_tifffile(content, layout)
    if layout.photometric == _WHITE_IS_ZERO and layout.bands == 1 and not turned:
        pages = [page ^ page.dtype.type(2**layout.bits - 1) if page.dtype.kind in 'ub' else page for page in pages]
    values = _stacked(pages)
    several = values.shape[2] > layout.bands
    return StoredImage(values, 0 if several else layout.colour, not several and layout.alpha)


def tiff_size(content: bytes | mmap) -> tuple[int, int]:
    """Height and width of the first page, put upright, from its tags alone.

    Raises:
        ValueError: The file is damaged.
    """
    layout = _layout(content)
    size = layout.height, layout.width
    return size[::-1] if layout.orientation in LYING else size


def _layout(content: bytes | mmap) -> _Layout:
    order, big = '<' if content[:2] == b'II' else '>', 43 in content[2:4]
    # BigTIFF has the same tables with wider numbers
    word, count_type, entry_size = ('Q', 'Q', 20) if big else ('I', 'H', 12)
    found = {256: 0, 257: 0, 274: 1, 277: 1, 258: 1, 262: 1, 284: 1, 338: 0}

    def unpacked(kind: str, at: int) -> int:
        return struct.unpack_from(order + kind, content, at)[0]

    try:
        start = unpacked(word, 8 if big else 4)
        first = start + struct.calcsize(f'<{count_type}')
        end = first + entry_size * unpacked(count_type, start)
        for entry in range(first, end, entry_size):
            tag, kind = unpacked('H', entry), _TYPES.get(unpacked('H', entry + 2))
            if tag in found and kind:
                room = struct.calcsize(f'<{word}')
                at = entry + 4 + room
                # values too many for the table lie elsewhere
                if unpacked(word, entry + 4) * struct.calcsize(f'<{kind}') > room:
                    at = unpacked(word, at)
                found[tag] = unpacked(kind, at)
        single = not unpacked(word, end)
    except struct.error as error:
        raise ValueError('a damaged TIFF') from error
    return _Layout(*found.values(), single)


def _pages_by_opencv(content: bytes) -> list[np.ndarray]:
    try:
        done, pages = cv2.imdecodemulti(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return []
    return [from_bgr(page) for page in pages] if done else []


def _page_by_pillow(content: bytes, bands: int) -> list[np.ndarray]:
    try:
        image = open_upright(content)
    except ValueError:
        # tifffile may know more
        return []
    if image is None or len(image.getbands()) != bands:
        return []
    return [with_channels(np.asarray(image))]


def _pages_by_tifffile(content: bytes, layout: _Layout) -> list[np.ndarray]:
    try:
        tifffile = import_module('tifffile')
    except ImportError as error:
        kind = f'{layout.bands} bands' + (' stored one after the other' if layout.apart else '')
        raise ValueError(
            f'a TIFF of {kind}, of {layout.bits} bits, which neither Pillow nor OpenCV reads right; '
            'pip install "addp_mm[data]" adds tifffile, which does; or the file is damaged'
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            pages = [_page_by_tifffile(page) for page in file.pages]
    except Exception as error:  # whatever its decoders raise on damaged files
        raise ValueError(str(error)) from error
    if not pages:
        raise ValueError('a TIFF without pages')
    return pages


def _page_by_tifffile(page) -> np.ndarray:
    values, axes = page.asarray(), page.axes
    if set(axes) - set('YXS'):
        raise ValueError(f'a page with axes {axes}; expected height, width and bands')
    if 'S' in axes:
        values = np.moveaxis(values, axes.index('S'), -1)
    orientation = page.tags.get(274)
    return put_upright(with_channels(values), 1 if orientation is None else int(orientation.value))


def _stacked(pages: Sequence[np.ndarray]) -> np.ndarray:
    """Pages as channels. Those of another size than the first are thumbnails of it."""
    return np.concatenate([page for page in pages if page.shape == pages[0].shape], axis=-1)
