# Copyright (c) addp_mm contributors. Apache-2.0.
"""The transform that loads images of 1 to 16 channels: grey, colour, bands, pages, arrays."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from addp_mm.datasets.readers.load_image import load_into
from addp_mm.datasets.readers.read_image import is_array, read_image
from addp_mm.datasets.readers.stored_image import StoredImage
from addp_mm.registry import TRANSFORMS

MAX_CHANNELS = 16
# ITU-R BT.601, as in Pillow's conversion.
_LUMINANCE = np.array([0.299, 0.587, 0.114])


@TRANSFORMS.register_module()
class LoadMultiChannelImage(BaseTransform):
    """Load an image of a fixed number of channels with the whole range of its values.

    It reads all formats that Pillow or OpenCV reads, TIFF files whose bands or pages are the
    channels (some compressions need ``pip install addp_mm[data]``), and ``.npy`` arrays of shape
    (H, W, C) or (H, W).

    With ``channels=1``, RGB becomes grey. With ``channels=3``, grey becomes RGB, alpha is blended
    onto white, and further bands after RGB, such as near infrared, are dropped. In all other cases
    the file must have this number of channels.

    Required keys: ``img_path``; or ``img_path`` and ``img_bytes``, the content of the file, which
    is removed.
    Added keys: ``img`` (shape (H, W, C), 0 to 255), ``img_shape`` and ``ori_shape`` (H, W).
    Three channels are BGR and need ``to_rgb=True`` in the data preprocessor. Any other number of
    channels is in the file's order and needs ``to_rgb=False``.

    Args:
        channels: Number of channels, 1 to 16.
        value_range: The values that become 0 and 255; values outside are clipped. It is required
            for floats and 32-bit integers, and serves for 12-bit values in 16 bits: ``(0, 4095)``.
            Defaults to None: the range of the type, 0 to 255 or 0 to 65535.
        to_float32: Whether ``img`` is float32, so that 16-bit values keep their steps; otherwise
            uint8. Defaults to True.
        backend_args: Arguments of mmengine's file backend. Defaults to None: inferred from the
            path.

    Raises:
        ValueError: ``channels`` or ``value_range`` is outside its range.
        FileNotFoundError: The file does not exist.
        BrokenImageError: The file cannot be decoded, or has another number of channels. It is a
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
        """Load the image of ``results``. For the keys see the class."""
        return load_into(results, self.decode, self.backend_args)

    def decode(self, content: bytes) -> np.ndarray:
        """Decode an image file.

        Args:
            content: The bytes of the file.

        Returns:
            (H, W, C), 0 to 255, the channels in the file's order.

        Raises:
            ValueError: The file is damaged, or has another number of channels.
        """
        image = self._scaled(self._selected(read_image(content)))
        if image.shape[2] != self.channels:
            order = ', where an array must be (H, W, C)' if is_array(content) else ''
            raise ValueError(
                f'{image.shape[2]} channels found, {self.channels} expected{order}: set channels of '
                'LoadMultiChannelImage to those of the images'
            )
        return image

    def _selected(self, image: StoredImage) -> np.ndarray:
        """The stored channels, converted to grey or RGB if needed."""
        if not image.colour or self.channels not in (1, 3) or image.num_channels == self.channels:
            return image.values
        values = image.visible()
        if values.shape[2] == self.channels:
            return values
        if values.shape[2] == 1:
            return np.repeat(values, 3, -1)
        grey = values @ _LUMINANCE
        return (grey if values.dtype.kind == 'f' else np.rint(grey)).astype(values.dtype)[..., None]

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == bool:
            values = values.astype(np.uint8) * np.uint8(255)
        if self.value_range is None and values.dtype not in (np.uint8, np.uint16):
            raise ValueError(f'{values.dtype} values have no known range: set value_range of LoadMultiChannelImage')
        lower, upper = self.value_range or (0, np.iinfo(values.dtype).max)
        if values.dtype.kind == 'f' and not np.isfinite(values).all():
            raise ValueError('values that are not finite')
        scaled = ((values.astype(np.float32) - lower) * (255 / (upper - lower))).clip(0, 255)
        return scaled.astype(np.float32) if self.to_float32 else np.rint(scaled).astype(np.uint8)
