# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of which a part is generated again, and the files of their samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.image_mask_pairs import ImageMaskPair
from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.datasets.readers.read_mask import read_mask
from addp_mm.generation.canvas import add_canvas
from addp_mm.report.png_name import png_name

_INPUTS_KEY = 'addp_mm inputs'  # in the PNG: of which image and mask it is a sample
_Read = TypeVar('_Read')


@dataclass(frozen=True)
class Region:
    """What is generated, besides the white part of a mask.

    Args:
        invert_mask: Whether the black part of a mask is meant. Defaults to False.
        box: A rectangle: left, top, width and height in pixels. Defaults to None.
        outpaint: New pixels on the left, above, on the right and below. Defaults to None.
    """

    invert_mask: bool = False
    box: tuple[int, int, int, int] | None = None
    outpaint: tuple[int, int, int, int] | None = None


class Edit:
    """One image to edit, with its mask.

    Args:
        pair: The files.
        channels: Channels of the model.
        region: What is generated, besides the mask.

    Attributes:
        source: The image file.
        name: Path below the folders of the results.
        inputs: Fingerprint of the image file and the mask file.
        image: uint8 (H, W, C), with the new canvas.
        mask: bool (H, W), True where to generate.

    Raises:
        DatasetError: A file cannot be read, the mask has another size than the image, or the box is
            not inside it.
    """

    def __init__(self, pair: ImageMaskPair, channels: int, region: Region) -> None:
        self.source, self.name = pair.image, png_name(pair.name)
        content = pair.image.read_bytes()
        image = _read(pair.image, lambda: decode(content, channels))
        mask, digest = None, hashlib.sha256(content)
        if pair.mask:
            mask_content = pair.mask.read_bytes()
            mask = _read(pair.mask, lambda: read_mask(mask_content, region.invert_mask))
            digest.update(mask_content)
        self.inputs = digest.hexdigest()
        self.image, self.mask = _with_region(pair, image, mask, region)

    def path(self, out: Path, sample: int) -> Path:
        """The file of a sample in the folder of the results."""
        return out / sample_name(self.name, sample)

    def is_complete(self, out: Path, sample: int) -> bool:
        """Whether the file of a sample is complete, and was made of this image and mask."""
        try:
            with Image.open(self.path(out, sample), formats=['PNG']) as image:
                found = image.info.get(_INPUTS_KEY)
                image.verify()
        except (OSError, SyntaxError):  # Pillow raises SyntaxError for a broken PNG
            return False
        return found == self.inputs

    def write(self, out: Path, sample: int, image: Tensor) -> None:
        """Write a sample (C, H, W) in [0, 1] atomically, with the fingerprint of its inputs."""
        pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        info = PngInfo()
        info.add_text(_INPUTS_KEY, self.inputs)
        with atomic_path(self.path(out, sample)) as partial:
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(partial, 'png', pnginfo=info)


def sample_name(name: Path, sample: int) -> str:
    """Path of a sample below the folder of the results."""
    return f'images/{sample:03d}/{name}'


def decode(content: bytes, channels: int) -> np.ndarray:
    """Pixels of an image file, uint8 (H, W, C), for a model of so many channels.

    Raises:
        ValueError: It cannot be read.
    """
    if channels == 3:
        return read_rgb(content)
    return LoadMultiChannelImage(channels, to_float32=False).decode(content)


def _read(path: Path, function: Callable[[], _Read]) -> _Read:
    try:
        return function()
    except ValueError as error:
        raise DatasetError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error


def _with_region(
    pair: ImageMaskPair, image: np.ndarray, mask: np.ndarray | None, region: Region
) -> tuple[np.ndarray, np.ndarray]:
    """The image with its new canvas, and the mask of all that is to be generated."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool) if mask is None else mask
    if mask.shape != (height, width):
        raise DatasetError(
            f'a mask must have the size of its image: {pair.image} has {width}x{height} pixels, and {pair.mask} '
            f'{mask.shape[1]}x{mask.shape[0]}'
        )
    if region.box:
        left, top, box_width, box_height = region.box
        if left + box_width > width or top + box_height > height:
            raise DatasetError(
                f'--box {",".join(map(str, region.box))} is not inside {pair.image}, of {width}x{height} pixels'
            )
        mask[top : top + box_height, left : left + box_width] = True
    if region.outpaint:
        image, mask = add_canvas(image, mask, *region.outpaint)
    return image, mask
