# Copyright (c) addp_mm contributors. Apache-2.0.
"""Load an image of any common mode as three channels of eight bits."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image

from addp_mm.datasets.readers.open_image import StoredImage, decode_with_opencv, open_upright, stored_colour
from addp_mm.datasets.readers.tiff_images import is_tiff, pillow_shows, read_tiff
from addp_mm.registry import TRANSFORMS

_WHITE = (255, 255, 255)


class BrokenImageError(ValueError):
    """An image that cannot be read, or is not of the kind expected; the message names it."""


def image_content(results: dict, backend_args: dict | None = None) -> bytes:
    """The bytes of an image file: those in ``img_bytes``, which are taken out, or else the content of ``img_path``."""
    content = results.pop('img_bytes', None)
    return fileio.get(results['img_path'], backend_args=backend_args) if content is None else content


def decode_image(content: bytes, background: tuple[int, int, int] = _WHITE) -> np.ndarray:
    """Decode an image file.

    The EXIF orientation is applied; transparent images, also palettes with a transparent colour,
    are laid on ``background``; 16-bit grey keeps its whole range (65535 becomes 255, where Pillow's
    own conversion clips); grey, palette, CMYK, YCbCr and Lab become RGB.

    Args:
        content: The bytes of a file that Pillow, OpenCV or, of bands stored one after the other in
            a TIFF, tifffile reads.
        background: RGB, 0 to 255.

    Returns:
        RGB, uint8, shape (H, W, 3).

    Raises:
        ValueError: The file is damaged, or its values have no known range (float images).
    """
    tiff = is_tiff(content)
    image = open_upright(content) if not tiff or pillow_shows(content) else None
    if image is None:
        return _to_rgb(read_tiff(content) if tiff else stored_colour(decode_with_opencv(content)), background)
    if image.mode == 'F':
        raise ValueError('float values have no known range; convert the image to 8 or 16 bits')
    if image.mode.startswith('I'):
        return _from_16_bit(image)
    if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        ground = Image.new('RGBA', image.size, (*background, 255))
        return np.asarray(Image.alpha_composite(ground, image.convert('RGBA')).convert('RGB'))
    return np.asarray(image.convert('RGB'))


def _to_rgb(stored: StoredImage, background: tuple[int, int, int]) -> np.ndarray:
    """Grey, RGB or either with alpha, 8 or 16 bits, as RGB of 8 bits."""
    values, colour, alpha = stored
    if values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'{values.dtype} values have no known range; convert the image to 8 or 16 bits')
    if not colour:
        raise ValueError(f'{values.shape[2]} channels; load it with addp_mm.LoadMultiChannelImage')
    unit = values / np.iinfo(values.dtype).max * 255
    rgb = unit[..., :3] if colour == 3 else np.repeat(unit[..., :1], 3, -1)
    if alpha:
        opaque = unit[..., colour : colour + 1] / 255
        rgb = rgb * opaque + np.array(background) * (1 - opaque)
    return np.rint(rgb).astype(np.uint8)


def _from_16_bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image.convert('I'))
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f'grey values from {values.min()} to {values.max()} exceed 16 bits')
    grey = np.rint(values / 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image; in place of mmcv's ``LoadImageFromFile``, for all four kinds of config.

    Differs from it in that a damaged file is an error that names the file (OpenCV returns truncated
    images with a grey rest), that transparency is laid on a background, and that 16-bit grey is
    scaled. See :func:`decode_image`.

    Required keys: ``img_path``, with ``img_bytes`` where it is no file but the name of these bytes
    (they are taken out); or ``img``, which then stays as it is (an inferencer has loaded it
    already). Added keys: ``img`` (BGR, uint8 or float32, shape (H, W, 3)), ``img_shape`` and
    ``ori_shape`` (H, W).

    Args:
        to_float32: Return float32 values, still 0 to 255.
        background: RGB, laid under transparent images.
        backend_args: Arguments of mmengine's file backend; None infers it from the path.

    Raises:
        FileNotFoundError: There is no such file.
        BrokenImageError: The file cannot be decoded; a ValueError.
    """

    def __init__(
        self, to_float32: bool = False, background: tuple[int, int, int] = _WHITE, backend_args: dict | None = None
    ) -> None:
        self.to_float32 = to_float32
        self.background = tuple(background)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        if 'img_path' not in results and 'img' in results:
            return results
        path = results['img_path']
        content = image_content(results, self.backend_args)
        try:
            rgb = decode_image(content, self.background)
        except ValueError as error:
            raise BrokenImageError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error
        image = np.ascontiguousarray(rgb[..., ::-1])
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(to_float32={self.to_float32}, background={self.background}, '
            f'backend_args={self.backend_args})'
        )
