# Copyright (c) addp_mm contributors. Apache-2.0.
"""Split a map into square windows and join them."""

import torch.nn.functional as F
from torch import Tensor


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Split a map into windows without overlap; zeros pad the right and the bottom if needed.

    Args:
        x: (B, H, W, C).
        window_size: Side of a window in tokens.

    Returns:
        Windows (B * windows, window_size, window_size, C), row-major, and the padded (height,
        width).
    """
    b, h, w, c = x.shape
    padded_h, padded_w = (-(-side // window_size) * window_size for side in (h, w))
    if (padded_h, padded_w) != (h, w):  # F.pad would copy the map
        x = F.pad(x, (0, 0, 0, padded_w - w, 0, padded_h - h))
    x = x.reshape(b, padded_h // window_size, window_size, padded_w // window_size, window_size, c)
    return x.transpose(2, 3).reshape(-1, window_size, window_size, c), (padded_h, padded_w)


def window_unpartition(windows: Tensor, padded_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Join the windows of :func:`window_partition` and cut the padding off.

    Args:
        windows: (B * windows, window_size, window_size, C).
        padded_hw: Padded height and width.
        hw: Height and width of the map.

    Returns:
        (B, H, W, C).
    """
    side, c = windows.shape[1], windows.shape[-1]
    rows, cols = padded_hw[0] // side, padded_hw[1] // side
    x = windows.reshape(-1, rows, cols, side, side, c).transpose(2, 3).reshape(-1, *padded_hw, c)
    return x[:, : hw[0], : hw[1]]


def to_window_order(x: Tensor, hw: tuple[int, int], window_size: int) -> Tensor:
    """Sort the tokens of a map, which are row-major, by windows.

    Args:
        x: (B, H * W, C).
        hw: Height H and width W of the map; multiples of the window's side.
        window_size: Side of a window in tokens.

    Returns:
        (B, H * W, C): the first window's tokens, row-major, then those of the second, ….
    """
    return window_partition(x.unflatten(1, hw), window_size)[0].reshape(x.shape)


def from_window_order(x: Tensor, hw: tuple[int, int], window_size: int) -> Tensor:
    """Sort the tokens of :func:`to_window_order` as they were.

    Args:
        x: (B, H * W, C).
        hw: Height H and width W of the map; multiples of the window's side.
        window_size: Side of a window in tokens.

    Returns:
        (B, H * W, C), row-major.
    """
    windows = x.reshape(-1, window_size, window_size, x.shape[2])
    return window_unpartition(windows, hw, hw).reshape(x.shape)
