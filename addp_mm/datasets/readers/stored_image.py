# Copyright (c) addp_mm contributors. Apache-2.0.
"""The pixels of an image file, and the meaning of its channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLENDED_AT_ONCE = 1 << 20  # values
# Values of the TIFF and EXIF tag Orientation that exchange height and width.
TRANSPOSING = (5, 6, 7, 8)


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored in its file, with the EXIF orientation applied.

    Args:
        values: (H, W, C), of any type, in this machine's byte order. Palettes, CMYK, YCbCr
            and Lab are converted to RGB or RGBA, uint8.
        colour: Number of colour channels, which are the first ones: 1 for grey, 3 for RGB. 0: all
            channels are bands, pages or an array.
        alpha: Whether the channel after the colour is alpha.
        premultiplied: Whether the colour is already multiplied by alpha. Defaults to False.
    """

    values: np.ndarray
    colour: int
    alpha: bool = False
    premultiplied: bool = False

    @classmethod
    def from_channels(cls, values: np.ndarray) -> StoredImage:
        """Infer the meaning of channels from their number: 1 grey, 3 RGB, 2 and 4 with alpha."""
        channels = values.shape[2]
        return cls(values, {1: 1, 2: 1, 3: 3, 4: 3}.get(channels, 0), channels in (2, 4))

    @property
    def num_channels(self) -> int:
        """Number of stored channels."""
        return self.values.shape[2]

    @property
    def ordinary(self) -> bool:
        """Whether the channels are grey or RGB, with or without alpha, and no others."""
        return self.colour > 0 and self.num_channels == self.colour + self.alpha

    def visible(self) -> np.ndarray:
        """The grey or RGB channels, with alpha blended onto white.

        Returns:
            The type of ``values``, shape (H, W, 1 or 3).

        Raises:
            ValueError: There is an alpha channel, and the values are neither uint8 nor uint16.
        """
        colour = self.values[..., : self.colour]
        if not self.alpha:
            return colour
        white = highest_value(self.values.dtype)
        visible = np.empty(colour.shape, self.values.dtype)
        rows = max(1, _BLENDED_AT_ONCE // max(1, colour[0].size))  # float64 of a large image would need gigabytes
        for start in range(0, len(colour), rows):
            part = colour[start : start + rows]
            opacity = self.values[start : start + rows, :, self.colour : self.colour + 1] / white
            blended = (part if self.premultiplied else part * opacity) + white * (1 - opacity)
            visible[start : start + rows] = np.rint(blended).clip(0, white)
        return visible

    def rgb(self) -> np.ndarray:
        """The image as RGB of eight bits, transparent pixels on white.

        Returns:
            uint8 (H, W, 3). 16 bits are scaled: 65535 becomes 255.

        Raises:
            ValueError: The channels are not colours, or their type has no known range.
        """
        if not self.colour:
            raise ValueError(f'{self.num_channels} channels; load it with addp_mm.LoadMultiChannelImage')
        white = highest_value(self.values.dtype)
        values = self.visible()
        if white != 255:
            values = np.rint(values * (255 / white)).astype(np.uint8)
        return np.repeat(values, 3, -1) if values.shape[2] == 1 else values


def highest_value(dtype: np.dtype) -> int:
    """The value of white for bool, uint8 or uint16; a ValueError for any other type."""
    if dtype.kind == 'b':
        return 1
    if dtype in (np.uint8, np.uint16):
        return int(np.iinfo(dtype).max)
    raise ValueError(f'{dtype} values have no known range; convert the image to 8 or 16 bits')


def with_channels(values: np.ndarray) -> np.ndarray:
    """Convert an array (H, W) or (H, W, C) to (H, W, C) and to this machine's byte order.

    Raises:
        ValueError: The array has another shape, or is empty.
    """
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f'an array of shape {values.shape}; expected (H, W) or (H, W, C)')
    return values.reshape(*values.shape[:2], -1).astype(values.dtype.newbyteorder('='), copy=False)


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the TIFF and EXIF tag Orientation.

    Args:
        values: (H, W, ...).
        orientation: 1 to 8; any other value changes nothing.
    """
    if orientation in TRANSPOSING:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
