# Copyright (c) addp_mm contributors. Apache-2.0.
"""Load images of 1 to 16 channels: grey, colour, several bands or pages, arrays."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from addp_mm.datasets.readers.load_image import BrokenImageError, decode_image, image_content
from addp_mm.datasets.readers.open_image import StoredImage
from addp_mm.datasets.readers.read_channels import is_array, read_channels
from addp_mm.registry import TRANSFORMS

MAX_CHANNELS = 16
# ITU-R BT.601, as in Pillow's conversion
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def shown_channels(content: bytes, stored: StoredImage) -> np.ndarray:
    """What is seen of a grey or colour image: shape (H, W, 1 or 3), without further bands.

    Palettes are looked up and transparent images laid on white, as RGB of eight bits; others keep
    their type.

    Args:
        content: The bytes of the file.
        stored: What :func:`read_channels` made of them.
    """
    if stored.values is None or stored.alpha:
        return decode_image(content)
    return stored.values[..., : stored.colour]


def _converted(values: np.ndarray) -> np.ndarray:
    """RGB of grey, or grey of RGB, in the same type."""
    if values.shape[2] == 1:
        return np.repeat(values, 3, -1)
    if (values == values[..., :1]).all():
        return values[..., :1]
    return np.rint(values @ _LUMINANCE).astype(values.dtype)[..., None]


@TRANSFORMS.register_module()
class LoadMultiChannelImage(BaseTransform):
    """Load an image of a set number of channels with the whole range of its values.

    Read are whatever Pillow or OpenCV reads, TIFF files whose bands or pages are the channels (more
    than four bands, or bands stored one after the other, through the optional package tifffile:
    ``pip install addp_mm[data]``), and ``.npy`` arrays (H, W, C) or (H, W). With ``channels=1`` colour images become grey, with ``channels=3`` grey,
    palette and transparent ones become RGB, as :class:`LoadImage` does, and of a TIFF with RGB and
    more bands, as near infrared, RGB is taken; otherwise the number must be that of the file.

    Required keys: ``img_path``, with ``img_bytes`` where it is no file but the name of these bytes
    (they are taken out).
    Added keys: ``img`` (shape (H, W, C), 0 to 255), ``img_shape`` and ``ori_shape`` (H, W).
    Channels are in the file's order, but three of them in reverse, as all of mmcv's transforms and
    preprocessors expect: three channels go with ``to_rgb=True``, any other number with
    ``to_rgb=False``.

    Args:
        channels: Number of channels, 1 to 16.
        value_range: What becomes 0 and 255; values beyond are clipped. Default: the range of the
            type, 0 to 255 or 0 to 65535. Needed for floats and 32 bits, and of use for 12-bit
            values in 16 bits, as ``(0, 4095)``.
        to_float32: Return float32, so that 16 bits keep their steps; otherwise uint8.
        backend_args: Arguments of mmengine's file backend; None infers it from the path.

    Raises:
        ValueError: ``channels`` or ``value_range`` makes no sense.
        FileNotFoundError: There is no such file.
        BrokenImageError: The file cannot be decoded, or has another number of channels; a
            ValueError.
    """

    def __init__(
        self,
        channels: int,
        value_range: tuple[float, float] | None = None,
        to_float32: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f'channels must be 1 to {MAX_CHANNELS}, got {channels}')
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f'value_range must be (lower, upper), got {value_range}')
        self.channels, self.value_range = channels, value_range
        self.to_float32, self.backend_args = to_float32, backend_args

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        content = image_content(results, self.backend_args)
        try:
            image = self.decode(content)
        except ValueError as error:
            raise BrokenImageError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error
        if self.channels == 3:
            image = image[..., ::-1]
        results['img'] = np.ascontiguousarray(image)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def decode(self, content: bytes) -> np.ndarray:
        """Decode an image file.

        Args:
            content: The bytes of the file.

        Returns:
            Channels in the file's order, 0 to 255: shape (H, W, C).

        Raises:
            ValueError: The file is damaged, or has another number of channels.
        """
        image = self._scaled(self._channels(content))
        if image.shape[2] != self.channels:
            order = ', where an array must be (H, W, C)' if is_array(content) else ''
            raise ValueError(
                f'{image.shape[2]} channels found, {self.channels} expected{order}: set channels of '
                'LoadMultiChannelImage to those of the images'
            )
        return image

    def _channels(self, content: bytes) -> np.ndarray:
        """Channels with their own type; grey for colour, and colour for grey, where that is what is wanted."""
        stored = read_channels(content)
        values = stored.values
        if values is None or stored.colour and values.shape[2] != self.channels and self.channels in (1, 3):
            values = shown_channels(content, stored)
            if values.shape[2] != self.channels and self.channels in (1, 3):
                values = _converted(values)
        return values

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == bool:
            values = values.astype(np.uint8) * np.uint8(255)
        if self.value_range is None and values.dtype not in (np.uint8, np.uint16):
            raise ValueError(f'{values.dtype} values have no known range: set value_range of LoadMultiChannelImage')
        if not self.to_float32 and self.value_range is None and values.dtype == np.uint8:
            return values
        lower, upper = self.value_range or (0, np.iinfo(values.dtype).max)
        if values.dtype.kind == 'f' and not np.isfinite(values).all():
            raise ValueError('values that are not finite')
        scaled = ((values.astype(np.float32) - lower) * (255 / (upper - lower))).clip(0, 255)
        return scaled.astype(np.float32) if self.to_float32 else np.rint(scaled).astype(np.uint8)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(channels={self.channels}, value_range={self.value_range}, '
            f'to_float32={self.to_float32}, backend_args={self.backend_args})'
        )
