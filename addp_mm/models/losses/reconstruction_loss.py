# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of reconstructed images."""

from __future__ import annotations

from torch import Tensor


def reconstruction_losses(
    reconstructions: Tensor, images: Tensor, l1_weight: float, mse_weight: float
) -> dict[str, Tensor]:
    """Weighted absolute and squared errors, and the PSNR.

    Args:
        reconstructions: (B, C, H, W), not clamped.
        images: (B, C, H, W), in [0, 1].
        l1_weight: Weight of the mean absolute error.
        mse_weight: Weight of the mean squared error.

    Returns:
        ``loss_l1``, ``loss_mse``, and for the log ``psnr`` in dB, the mean over the images.
    """
    error = reconstructions - images
    squares = error.detach().square().mean((1, 2, 3)).clamp_min(1e-10)
    return dict(
        loss_l1=l1_weight * error.abs().mean(),
        loss_mse=mse_weight * error.square().mean(),
        psnr=-10 * squares.log10().mean(),
    )
