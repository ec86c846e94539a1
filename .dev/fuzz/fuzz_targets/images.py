# Copyright (c) addp_mm contributors. Apache-2.0.
"""Image files of all formats, and TIFF files by themselves."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import tifffile
from PIL import Image

from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_image, read_rgb, upright_size
from addp_mm.datasets.readers.read_mask import read_mask
from fuzz_targets.target import Target, scratch

_MOST_PIXELS = 1 << 19  # the time of larger images is that of their pixels
_TWO_BANDS = LoadMultiChannelImage(2, value_range=(0, 100))


def read_images(data: bytes) -> None:
    """Read the bytes with all readers. What one has read agrees with what the others say."""
    with patch.object(Image, 'MAX_IMAGE_PIXELS', _MOST_PIXELS):
        _read_images(data)


def _read_images(data: bytes) -> None:
    suffix = '.npy' if data.startswith(b'\x93NUMPY') else '.png'
    size = upright_size(scratch(f'image{suffix}', data))
    found = read_image(data).values.shape[:2]
    if size not in (None, found):
        raise AssertionError(f'upright_size is {size}, but the image has {found}')
    try:
        rgb = read_rgb(data)
    except ValueError:
        rgb = None
    if rgb is not None and (rgb.dtype != np.uint8 or rgb.shape != (*found, 3) or read_mask(data).shape != found):
        raise AssertionError(f'{rgb.dtype} of shape {rgb.shape} for an image of {found}')
    with suppress(ValueError):
        _TWO_BANDS.decode(data)


def _pillow() -> Iterable[bytes]:
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, kind, options in (
        ('RGB', 'PNG', dict(exif=exif)),
        ('LA', 'PNG', {}),
        ('P', 'GIF', dict(transparency=0)),
        ('RGB', 'JPEG', dict(exif=exif)),
        ('CMYK', 'JPEG', {}),
        ('RGBA', 'WEBP', dict(lossless=True)),
        ('1', 'BMP', {}),
        ('L', 'PPM', {}),
        ('RGB', 'TGA', {}),
        ('RGB', 'JPEG2000', {}),
        ('L', 'PCX', {}),
        ('RGBA', 'ICO', dict(sizes=[(4, 4)])),
        ('RGB', 'SGI', {}),
    ):
        file = io.BytesIO()
        grey.convert(mode).save(file, kind, **options)
        yield file.getvalue()
    deep = io.BytesIO()
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3)).save(deep, 'PNG')
    yield deep.getvalue()


def _arrays() -> Iterable[bytes]:
    for array in (np.zeros((2, 3), np.uint8), np.zeros((2, 1, 2), '>u2'), np.zeros((1, 2), np.float32)):
        file = io.BytesIO()
        np.save(file, array)
        yield file.getvalue()
    yield b'P6 2 1 65535\n' + bytes(12)
    yield b'Pf 2 1 -1.0\n' + bytes(8)
    yield b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 2\n' + bytes(8)
    yield bytes.fromhex('59a66a95') + np.array([2, 1, 8, 4, 1, 0, 0], '>u4').tobytes() + bytes(4)  # a Sun raster


def _tiffs() -> Iterable[bytes]:
    for array, options in (
        (np.zeros((2, 3, 3), np.uint8), dict(photometric='rgb')),
        (np.zeros((2, 2, 3), np.uint16), dict(photometric='minisblack')),
        (np.zeros((2, 3), bool), dict(photometric='miniswhite')),
        (np.zeros((2, 3, 4), np.uint8), dict(photometric='rgb', extrasamples=['assocalpha'])),
        (np.zeros((2, 3), np.float32), dict(bigtiff=True)),
        (np.zeros((16, 16), np.uint8), dict(tile=(16, 16), compression='zlib')),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, array, metadata=None, software='', **options)
        yield file.getvalue()


IMAGE = Target(
    read_images,
    lambda: (*_pillow(), *_arrays()),
    allowed=(ValueError,),
    words=(b'IHDR', b'IDAT', b'tRNS', b'eXIf', b'RIFF', b'WEBP', b'\xff\x4f\xff\x51', b"{'descr': '<f8'", b'P5', b'P6'),
)
TIFF = Target(
    read_images,
    _tiffs,
    allowed=(ValueError,),
    words=(b'II*\0', b'MM\0*', b'II+\0', *((code).to_bytes(2, 'little') for code in range(254, 285))),
)
