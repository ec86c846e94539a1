# Copyright (c) addp_mm contributors. Apache-2.0.
"""Adapt the first convolution of a network to images with another number of channels."""

import math

from torch import Tensor


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the kernel of a convolution over an image to another number of channels.

    For one channel the kernels of all channels are added: a grey image gives what the old network
    gives for the image in all its channels. For more channels the kernels are repeated in their
    order and scaled, so that the sum over the channels keeps its size: RGBRGB at one half each, or
    RGBR at three quarters each. timm's models do the same with kernels of three channels.

    Args:
        weight: (C, in_channels, h, w).
        channels: Channels of the new images.

    Returns:
        (C, channels, h, w), in the weight's dtype.
    """
    old = weight.size(1)
    if old == channels:
        return weight
    exact = weight.double()
    if channels == 1:
        adapted = exact.sum(1, keepdim=True)
    else:
        adapted = exact.repeat(1, math.ceil(channels / old), 1, 1)[:, :channels] * (old / channels)
    return adapted.to(weight.dtype)
