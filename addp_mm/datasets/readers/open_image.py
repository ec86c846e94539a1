# Copyright (c) addp_mm contributors. Apache-2.0.
"""Decode an image file with Pillow, or with OpenCV what Pillow does not know."""

from __future__ import annotations

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

# how an image is put upright, by the value of TIFF's and EXIF's tag Orientation
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}

# those of them that exchange height and width
LYING = (5, 6, 7, 8)


class StoredImage(NamedTuple):
    """An image as its file holds it.

    Args:
        values: Shape (H, W, C), of any type; None where colours need looking up or computing, as of
            palettes.
        colour: How many channels from the first on are grey (1) or RGB (3); 0 where all are bands,
            pages or an array.
        alpha: Whether the channel after these says how opaque they are.
    """

    values: np.ndarray | None
    colour: int
    alpha: bool = False

    @property
    def ordinary(self) -> bool:
        """Whether this is a grey or colour image, transparent or not, and nothing else."""
        return self.colour > 0 and (self.values is None or self.values.shape[2] == self.colour + self.alpha)


def open_upright(content: bytes) -> Image.Image | None:
    """Decode a file with Pillow and apply its EXIF orientation; None where Pillow does not know the format.

    Raises:
        ValueError: The file is damaged, or the image too large to be decoded again for each crop.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except Image.UnidentifiedImageError:
        return None
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f'more than {2e-6 * Image.MAX_IMAGE_PIXELS:.0f} megapixels; cut it into tiles with '
            'tools/dataset_converters/image_tiles.py'
        ) from error
    except Exception as error:  # whatever Pillow's plugins raise on odd files, also KeyError or ZeroDivisionError
        raise ValueError(str(error) or type(error).__name__) from error


def decode_with_opencv(content: bytes) -> np.ndarray:
    """Decode a file that Pillow does not know, or of which it keeps too little.

    Returns:
        Shape (H, W, C), of any type; RGB or RGBA where there are three or four channels.

    Raises:
        ValueError: OpenCV does not know it either.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:
        image = None
    if image is None:
        # OpenCV gives no reason
        raise ValueError('not an image, or of an unknown format')
    return from_bgr(image)


def from_bgr(image: np.ndarray) -> np.ndarray:
    """OpenCV's image as (H, W, C), three or four channels as RGB or RGBA."""
    image = image.reshape(*image.shape[:2], -1)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(image.shape[2])
    return image if order is None else image[..., order]


def stored_colour(values: np.ndarray) -> StoredImage:
    """Grey (H, W, 1), RGB (H, W, 3) or either with alpha as what it is; of more channels, bands."""
    channels = values.shape[2]
    return StoredImage(values, {1: 1, 2: 1, 3: 3, 4: 3}.get(channels, 0), channels in (2, 4))


def with_channels(values: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) as (H, W, C), in this machine's order of bytes; a ValueError for any other shape."""
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f'an array of shape {values.shape}; expected (H, W) or (H, W, C)')
    return values.reshape(*values.shape[:2], -1).astype(values.dtype.newbyteorder('='), copy=False)


def put_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the value of the tag Orientation to (H, W, ...)."""
    return _UPRIGHT.get(orientation, lambda x: x)(values)
