# Copyright (c) addp_mm contributors. Apache-2.0.
"""A reward of a user's own module: how red an image is."""

from addp_mm.registry import REWARDS


@REWARDS.register_module()
def how_red(images):
    """Mean of the red channel, (B,)."""
    return images[:, 0].mean((1, 2))
