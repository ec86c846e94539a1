# Copyright (c) addp_mm contributors. Apache-2.0.
"""Bands and pages of TIFF files, read by tifffile."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from addp_mm.datasets.readers.stored_image import TRANSPOSING, StoredImage, upright, with_channels

_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_ORIENTATION = 274
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_BITS = 128  # of a complex number
# of an image of the largest size; LoadMultiChannelImage reads 16 channels
_MOST_BANDS = 16
# colour spaces that need a conversion, which Pillow does
_CONVERTED = ('PALETTE', 'SEPARATED', 'YCBCR', 'CIELAB')


def is_tiff(content: bytes) -> bool:
    """Whether a file that starts with these bytes is a TIFF or BigTIFF."""
    return content.startswith(_SIGNATURES)


def read_tiff(content: bytes, max_pixels: int | None, all_pages: bool = True) -> StoredImage | None:
    """Read the bands of a TIFF, or its pages as channels.

    White is the highest value, also in files that store it as zero. Pages of another shape than the
    first one are thumbnails and are skipped.

    Args:
        content: The bytes of the file.
        max_pixels: Size from which an image is refused; None for no limit. All bands and pages
            together may have 16 times as many values.
        all_pages: Whether the pages after the first are read. Defaults to True.

    Returns:
        The pixels; None if the first page needs a colour conversion (palette, CMYK, YCbCr, Lab).

    Raises:
        ValueError: The file is damaged or too large, or imagecodecs is not installed and is needed.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            first = file.pages[0]
            if first.photometric.name in _CONVERTED:
                return None
            # the size of the others is that of the first, or they are not read
            others = (page for page in file.pages if _area(page) == _area(first))
            selected = list(others) if all_pages else [first]
            # each page and band may be stored in a few bytes
            if max_pixels is not None and (
                _area(first) > max_pixels or sum(map(_num_values, selected)) > _MOST_BANDS * max_pixels
            ):
                raise TooLargeError(max_pixels)
            pages = [_read_page(page) for page in selected]
            colour, alpha = _colour_of(first)
    except MemoryError:
        raise
    except Exception as error:  # tifffile and its decoders raise many types of errors for damaged files
        raise ValueError(_explained(error)) from error
    if len(pages) > 1:
        same = [page for page in pages if page.shape == pages[0].shape]
        if len(same) > 1:
            return StoredImage(np.concatenate(same, axis=-1), 0)
    return StoredImage(pages[0], colour, alpha > 0, alpha == _ASSOCIATED)


def tiff_size(path: Path) -> tuple[int, int]:
    """Height and width of the first page with its orientation applied, read from its tags."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        size = page.imagelength, page.imagewidth
        return size[::-1] if _orientation(page) in TRANSPOSING else size


class TooLargeError(ValueError):
    """An image has more than ``max_pixels``; the message names the tool for tiles."""

    def __init__(self, max_pixels: int) -> None:
        super().__init__(
            f'more than {1e-6 * max_pixels:.0f} megapixels; cut it into tiles with '
            'tools/dataset_converters/image_tiles.py'
        )


def _num_values(page: Any) -> int:
    return page.imagewidth * page.imagelength * page.imagedepth * page.samplesperpixel


def _read_page(page: Any) -> np.ndarray:
    if not 1 <= page.bitspersample <= _MOST_BITS:
        raise ValueError(f'values of {page.bitspersample} bits')
    values, axes = page.asarray(), page.axes
    if set(axes) - set('YXS'):
        raise ValueError(f'a page with axes {axes}; expected height, width and bands')
    if 'S' in axes:
        values = np.moveaxis(values, axes.index('S'), -1)
    highest = 2**page.bitspersample - 1
    if page.photometric.name == 'MINISWHITE' and values.dtype.kind in 'ub':
        values = values ^ values.dtype.type(highest)
    if values.dtype == np.uint8 and highest < 255:
        values = values * np.uint8(255 // highest)
    return upright(with_channels(values), _orientation(page))


def _area(page: Any) -> int:
    return page.imagewidth * page.imagelength


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def _colour_of(page: Any) -> tuple[int, int]:
    """Number of grey or RGB bands, and the kind of the alpha after them; 0 without alpha."""
    bands, extra = page.samplesperpixel, page.extrasamples
    alpha = int(extra[0]) if extra and extra[0] in (_ASSOCIATED, _UNASSOCIATED) else 0
    if page.photometric.name == 'RGB' and bands > 2:
        return 3, alpha
    return (1, alpha) if bands == 1 + (alpha > 0) else (0, 0)


def _explained(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if 'imagecodecs' in text or isinstance(error, ImportError):
        return f'its compression needs the package imagecodecs: pip install "addp_mm[data]"; {text}'
    return text
