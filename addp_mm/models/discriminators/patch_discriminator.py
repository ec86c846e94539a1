# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from addp_mm.registry import MODELS

_NORMS = ('group', 'batch', 'none')


@MODELS.register_module()
class PatchDiscriminator(BaseModule):
    """Judges overlapping patches of an image: real or reconstructed (PatchGAN, arXiv 1611.07004).

    4x4 convolutions: ``num_layers`` of stride 2, which double the width up to 8 times the first,
    one of stride 1 and the output. With 3 layers each logit sees 70 px, with 2 layers 34, with 1
    layer 16.

    Args:
        in_channels: Channels of the images.
        base_channels: Width of the first layer.
        num_layers: Layers of stride 2.
        norm: 'group' (of at most 32 groups) does not mix images, so that a batch on several
            processes is judged as on one; 'batch' is the published one; or 'none'.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: If the norm is not one of these, or there is no layer.

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
        self.smallest_side = _smallest_side(num_layers)
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
        """Logits (B, 1, h, w), large where the image looks real, of images (B, in_channels, H, W) in [0, 1].

        Raises:
            ValueError: If the images have other channels, or are too small for a single logit.
        """
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f'the discriminator judges images of {self.in_channels} channels, got '
                f'{images.shape[1]}; set in_channels={images.shape[1]}'
            )
        if min(images.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f'images of {images.shape[-2]}x{images.shape[-1]} px are too small for a discriminator '
                f'that needs {self.smallest_side} px; lower its num_layers'
            )
        return self.layers(2 * images - 1)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == 'none':
        return nn.Identity()
    if kind == 'batch':
        return nn.BatchNorm2d(channels)
    groups = next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def _smallest_side(num_layers: int) -> int:
    """Pixels of which one logit is left: two layers of stride 1 each take a pixel off."""
    return 3 * 2**num_layers


def judge_frozen(discriminator: nn.Module, images: Tensor) -> Tensor:
    """The discriminator's logits with a gradient to the images and none to its weights; its buffers stay."""
    weights = {name: value.detach() for name, value in discriminator.named_parameters()}
    buffers = {name: value.clone() for name, value in discriminator.named_buffers()}
    return torch.func.functional_call(discriminator, {**weights, **buffers}, (images,))
