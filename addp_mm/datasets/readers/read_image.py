# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read image files of all formats.

tifffile reads TIFF, and numpy reads ``.npy``. Pillow reads the other formats that it supports.
OpenCV reads the rest, and colours of more than eight bits, which Pillow would reduce to eight.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from addp_mm.datasets.readers.read_tiff import TooLargeError, is_tiff, read_tiff, tiff_size
from addp_mm.datasets.readers.stored_image import TRANSPOSING, StoredImage, upright, with_channels
from addp_mm.safe_files.arrays import read_npy

_NPY = b'\x93NUMPY'
# PNG (ISO/IEC 15948): the signature, and the bytes of a chunk besides its content
_PNG, _CHUNK_EXTRA = b'\x89PNG\r\n\x1a\n', 12
_ORIENTATION = 0x0112
_CONVERTED_MODES = ('P', 'PA', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'RGBX')
# JPEG 2000 (ISO/IEC 15444-1, A.5.1): the markers SOC and SIZ, and the distance from them to the
# depth of the first channel. Neither Pillow nor OpenCV returns this depth.
_CODESTREAM, _DEPTH_AT = b'\xff\x4f\xff\x51', 42


def read_image(source: bytes | str | os.PathLike, all_pages: bool = True, max_pixels: int | None = None) -> StoredImage:
    """Read an image file with the type and range of its values.

    Args:
        source: A path, or the bytes of an image file or of an ``.npy`` file.
        all_pages: Whether all pages of a TIFF are read, as channels; otherwise the first one.
            Defaults to True.
        max_pixels: Size from which a TIFF is refused. Defaults to None: twice Pillow's
            ``Image.MAX_IMAGE_PIXELS``, as for all other formats.

    Returns:
        The pixels, with the EXIF orientation applied.

    Raises:
        ValueError: The file is damaged, of an unknown format, or has too many pixels.
        OSError: The path cannot be read.

    Example:
        >>> image = read_image('scan.tif')  # doctest: +SKIP
        >>> image.values.shape, image.values.dtype, image.colour  # doctest: +SKIP
        ((512, 512, 4), dtype('uint16'), 3)
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if is_array(content):
        return StoredImage(_read_array(content), 0)
    if is_tiff(content):
        tiff = read_tiff(content, max_pixels or _max_pixels(), all_pages)
        if tiff is not None:
            return tiff
    try:
        with Image.open(io.BytesIO(content)) as image:
            white = _white_of_colour(image, content)
            if white > 255:
                return _read_deep_colour(image, content, white)
            image.load()
            deep_grey = image.mode == 'I' and image.format in ('PNG', 'PPM')
            turned = image.getexif().get(_ORIENTATION, 1) != 1  # exif_transpose also copies an upright image
            return _from_pillow(ImageOps.exif_transpose(image) if turned else image, deep_grey)
    except Image.UnidentifiedImageError:
        return StoredImage.from_channels(_decode_with_opencv(content))
    except (MemoryError, ValueError):
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(_max_pixels() or 0) from error
    except Exception as error:  # Pillow's plugins raise many types of errors for damaged files, also KeyError
        raise ValueError(str(error) or type(error).__name__) from error


def read_rgb(source: bytes | str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB of eight bits.

    Transparent pixels are blended onto white. 16 bits are scaled: 65535 becomes 255. Of a TIFF with
    several pages, the first one is read.

    Args:
        source: A path, or the bytes of an image file.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: The file is damaged or of an unknown format, or its values have no known range.
        OSError: The path cannot be read.
    """
    return read_image(source, all_pages=False).rgb()


def is_array(content: bytes) -> bool:
    """Whether a file that starts with these bytes is an ``.npy`` file."""
    return content.startswith(_NPY)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image with its EXIF orientation applied, without decoding it.

    Args:
        path: Path of an image file or an ``.npy`` file.

    Returns:
        None if the file is damaged, or if Pillow, tifffile and numpy cannot read it.
    """
    try:
        if path.suffix.lower() == '.npy':
            height, width = np.load(path, mmap_mode='r', allow_pickle=False).shape[:2]
            return height, width
        with open(path, 'rb') as file:
            if is_tiff(file.read(4)):
                return tiff_size(path)
            image = Image.open(file)
            return image.size if _orientation(image) in TRANSPOSING else image.size[::-1]
    except Exception:  # the libraries raise many types of errors; decoding later gives the reason
        return None


def _max_pixels() -> int | None:
    """Twice Pillow's limit. Pillow itself refuses larger images."""
    return Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS


def _orientation(image: Image.Image) -> int:
    # PngImageFile.getexif would decode the image.
    return Image.Image.getexif(image).get(_ORIENTATION, 1)


def _from_pillow(image: Image.Image, deep_grey: bool) -> StoredImage:
    # PNG's tRNS chunk and GIF's transparent index. Pillow cannot convert it for 16-bit grey.
    transparent = 'transparency' in image.info and image.mode in ('1', 'L', 'P', 'RGB')
    if transparent or image.mode in _CONVERTED_MODES:
        image = image.convert('RGBA' if transparent or image.mode == 'PA' else 'RGB')
    premultiplied = image.mode in ('La', 'RGBa')
    values = with_channels(np.asarray(image))
    stored = StoredImage.from_channels(values.astype(np.uint16) if deep_grey else values)
    return StoredImage(stored.values, stored.colour, stored.alpha, premultiplied)


def _white_of_colour(image: Image.Image, content: bytes) -> int:
    """The value of white if Pillow would reduce this file to eight bits; otherwise 255."""
    tile = getattr(image, 'tile', None)
    if image.mode not in ('RGB', 'RGBA') or not tile:
        return 255
    arguments = tile[0][3]
    if image.format == 'PNG':
        return 65535 if '16' in arguments else 255
    if image.format == 'PPM':
        return arguments[1] if isinstance(arguments, tuple) else 255
    at = content.find(_CODESTREAM, 0, 4096) if image.format == 'JPEG2000' else -1
    return 2 ** ((content[at + _DEPTH_AT] & 0x7F) + 1) - 1 if at >= 0 else 255


def _read_deep_colour(image: Image.Image, content: bytes, white: int) -> StoredImage:
    """RGB or RGBA of more than eight bits, scaled to 16 bits, by OpenCV."""
    values = _decode_with_opencv(content)
    if white != 65535:
        values = np.rint(values * (65535 / white)).clip(0, 65535).astype(np.uint16)
    return StoredImage.from_channels(upright(values, _orientation(image)))


def _decode_with_opencv(content: bytes) -> np.ndarray:
    """Array (H, W, C), uint8 or uint16; three channels are RGB, four are RGBA."""
    if content.startswith(_PNG) and not _has_whole_chunks(content):
        raise ValueError('a damaged or truncated PNG file')
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:
        image = None
    if image is None:
        raise ValueError('not an image, damaged, or of an unknown format')
    image = image.reshape(*image.shape[:2], -1)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(image.shape[2])
    return image if order is None else image[..., order]


def _has_whole_chunks(content: bytes) -> bool:
    """Whether no chunk of a PNG file is longer than the file: OpenCV would allocate its length."""
    at = len(_PNG)
    while at < len(content):
        at += _CHUNK_EXTRA + int.from_bytes(content[at : at + 4], 'big')
        if content[at - _CHUNK_EXTRA + 4 : at - 4] == b'IEND':  # without content
            break
    return at <= len(content)


def _read_array(content: bytes) -> np.ndarray:
    try:
        return with_channels(read_npy(content))
    except MemoryError:
        raise
    except Exception as error:  # numpy raises many types of errors for a damaged header
        raise ValueError(str(error) or type(error).__name__) from error
