# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convolutional halves of the VQ tokenizer, in the layout of the released MaskGIT-style VQGAN weights."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, num_groups: int = 32) -> nn.GroupNorm:
    """GroupNorm as the released weights use it: 32 groups, eps 1e-6."""
    return nn.GroupNorm(num_groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Two facts of the released weights that differ from most VQGANs: the convolutions carry no bias, and where the
    number of channels changes the shortcut is a 1x1 convolution of the block's *output*, not of its input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        shortcut_from: 'output' as released, or 'input' as in other VQGANs. From the output, everything passes through
            a group norm, which takes away most of what is the same all over an image: its colours are learned late.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut_from: str = 'output') -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut_from = shortcut_from
        self.shortcut = None
        if in_channels != out_channels:
            source_channels = in_channels if shortcut_from == 'input' else out_channels
            self.shortcut = nn.Conv2d(source_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.shortcut is None:
            return hidden + x
        return hidden + self.shortcut(x if self.shortcut_from == 'input' else hidden)


def residual_blocks(in_channels: int, out_channels: int, depth: int, shortcut_from: str) -> nn.Sequential:
    widths = [in_channels] + [out_channels] * depth
    return nn.Sequential(*(ResidualBlock(i, o, shortcut_from) for i, o in zip(widths, widths[1:], strict=False)))


class ConvEncoder(nn.Module):
    """Image (B, in_channels, H, W) -> latents (B, latent_channels, H / stride, W / stride).

    Args:
        in_channels: Channels of the image.
        level_channels: Width of each level, from the finest to the coarsest; between levels the map is halved by
            2x2 average pooling.
        latent_channels: Channels of the latents.
        num_res_blocks: Residual blocks a level.
        num_mid_blocks: Residual blocks behind the coarsest level.
        stem_stride: The image is first folded by pixel-unshuffle with this factor (1: not at all).
        shortcut_from: See :class:`ResidualBlock`.
    """

    def __init__(self, in_channels: int, level_channels: Sequence[int], latent_channels: int, num_res_blocks: int,
                 num_mid_blocks: int, stem_stride: int, shortcut_from: str = 'output') -> None:
        super().__init__()
        self.stem_stride = stem_stride
        self.conv_in = nn.Conv2d(in_channels * stem_stride**2, level_channels[0], 3, padding=1, bias=False)
        widths = [level_channels[0], *level_channels]
        self.levels = nn.ModuleList(
            residual_blocks(i, o, num_res_blocks, shortcut_from) for i, o in zip(widths, level_channels, strict=False))
        self.mid = residual_blocks(level_channels[-1], level_channels[-1], num_mid_blocks, shortcut_from)
        self.norm_out = group_norm(level_channels[-1])
        self.conv_out = nn.Conv2d(level_channels[-1], latent_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(images, self.stem_stride))
        for index, level in enumerate(self.levels):
            if index:
                x = F.avg_pool2d(x, 2)
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class ConvDecoder(nn.Module):
    """Latents (B, latent_channels, h, w) -> image (B, out_channels, h * stride, w * stride), not clamped.

    The mirror of :class:`ConvEncoder`; between levels the map is doubled by nearest neighbour and a 3x3 convolution.
    """

    def __init__(self, out_channels: int, level_channels: Sequence[int], latent_channels: int, num_res_blocks: int,
                 num_mid_blocks: int, stem_stride: int, shortcut_from: str = 'output') -> None:
        super().__init__()
        coarse_to_fine = list(reversed(level_channels))
        self.stem_stride = stem_stride
        self.conv_in = nn.Conv2d(latent_channels, coarse_to_fine[0], 3, padding=1)
        self.mid = residual_blocks(coarse_to_fine[0], coarse_to_fine[0], num_mid_blocks, shortcut_from)
        widths = [coarse_to_fine[0], *coarse_to_fine]
        self.levels = nn.ModuleList(
            residual_blocks(i, o, num_res_blocks, shortcut_from) for i, o in zip(widths, coarse_to_fine, strict=False))
        self.upsamples = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in coarse_to_fine[:-1])
        self.norm_out = group_norm(coarse_to_fine[-1])
        self.conv_out = nn.Conv2d(coarse_to_fine[-1], out_channels * stem_stride**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latents))
        for index, level in enumerate(self.levels):
            if index:
                x = self.upsamples[index - 1](F.interpolate(x, scale_factor=2, mode='nearest'))
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.stem_stride)
