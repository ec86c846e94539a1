# Copyright (c) addp_mm contributors. Apache-2.0.
"""The PatchGAN discriminator."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from addp_mm.registry import MODELS

_NORMS = ('group', 'batch', 'none')


@MODELS.register_module()
class PatchDiscriminator(BaseModule):
    """Classify patches of an image as real or reconstructed (PatchGAN, arXiv 1611.07004).

    The layers are 4x4 convolutions: ``num_layers`` of stride 2, which double the width up to 8
    times the first, one of stride 1 and the output. The receptive field of a logit is 70 px with 3
    layers, 34 px with 2 and 16 px with 1.

    Args:
        in_channels: Channels of the images. Defaults to 3.
        base_channels: Width of the first layer. Defaults to 64.
        num_layers: Number of layers of stride 2. Defaults to 3.
        norm: 'group' (at most 32 groups; images do not influence each other, so results do not
            depend on the number of processes), 'batch' (as published) or 'none'. Defaults to
            'group'.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: The norm is unknown, or a number is below 1.

    Example:
        >>> PatchDiscriminator(in_channels=4)(torch.rand(2, 4, 64, 64)).shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(
        self,
        in_channels: int = 3,
        base_channels: int = 64,
        num_layers: int = 3,
        norm: str = 'group',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if norm not in _NORMS:
            raise ValueError(f'norm of the discriminator must be one of {_NORMS}, got {norm!r}')
        if num_layers < 1 or in_channels < 1:
            raise ValueError(
                'num_layers and in_channels of the discriminator must be at least 1, got '
                f'{num_layers} and {in_channels}'
            )
        self.in_channels = in_channels
        self.smallest_side = 3 * 2**num_layers  # the two layers of stride 1 need a map of 3 x 3
        widths = [base_channels * min(2**level, 8) for level in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for level, (width_in, width_out) in enumerate(zip(widths, widths[1:], strict=False), 1):
            stride = 2 if level < num_layers else 1
            layers += [
                nn.Conv2d(width_in, width_out, 4, stride, 1, bias=norm == 'none'),
                _norm(norm, width_out),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Classify patches.

        Args:
            images: (B, in_channels, H, W) in [0, 1].

        Returns:
            Logits (B, 1, h, w), large where the image looks real.

        Raises:
            ValueError: The images have other channels, or are too small for one logit.
        """
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f'the discriminator needs images of {self.in_channels} channels, got '
                f'{images.shape[1]}; set in_channels={images.shape[1]}'
            )
        if min(images.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f'images of {images.shape[-2]}x{images.shape[-1]} px are too small for the discriminator, '
                f'which needs {self.smallest_side} px: lower its num_layers'
            )
        return self.layers(2 * images - 1)


def _norm(kind: str, channels: int) -> nn.Module:
    """Normalisation layer by its name in the options."""
    if kind == 'none':
        return nn.Identity()
    if kind == 'batch':
        return nn.BatchNorm2d(channels)
    groups = next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def frozen_logits(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Logits with a gradient to the images only.

    Args:
        discriminator: Its weights get no gradient and its buffers do not change.
        images: (B, C, H, W).

    Returns:
        (B, 1, h, w).
    """
    weights = {name: value.detach() for name, value in discriminator.named_parameters()}
    buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
    return torch.func.functional_call(discriminator, {**weights, **buffers}, (images,))
