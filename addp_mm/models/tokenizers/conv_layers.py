# Copyright (c) addp_mm contributors. Apache-2.0.
"""Encoder and decoder of the VQ tokenizer: MaskGIT's layout by default, taming's by options.

On the CPU both run on maps in the channels-last memory format, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ConvOptions:
    """Differences between the released VQGANs; the defaults are MaskGIT's.

    See :class:`~addp_mm.models.tokenizers.VQTokenizer` for each option.

    Raises:
        ValueError: An option is not one of its values.
    """

    shortcut_from: str = 'output'
    conv_bias: bool = False
    num_groups: int = 32
    downsample: str = 'avg'
    attn_levels: tuple[int, ...] = ()
    mid_attn: bool = False
    encoder_out_kernel: int = 1

    def __post_init__(self) -> None:
        if self.shortcut_from not in ('output', 'input'):
            raise ValueError(f"shortcut_from must be 'output' or 'input', got {self.shortcut_from!r}")
        if self.downsample not in ('avg', 'conv'):
            raise ValueError(f"downsample must be 'avg' or 'conv', got {self.downsample!r}")
        if self.encoder_out_kernel not in (1, 3):
            raise ValueError(f'encoder_out_kernel must be 1 or 3, got {self.encoder_out_kernel!r}')

    def group_norm(self, channels: int) -> nn.GroupNorm:
        """GroupNorm with the epsilon of all released weights, 1e-6."""
        return nn.GroupNorm(self.num_groups, channels, eps=1e-6)


class SpatialAttention(nn.Module):
    """Residual self-attention over all positions of a map with one head.

    Args:
        channels: Channels of the map.
        options: Groups of the norm.
    """

    def __init__(self, channels: int, options: ConvOptions) -> None:
        super().__init__()
        self.norm = options.group_norm(channels)
        self.q, self.k, self.v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to a map (B, C, H, W); the result has the same shape."""
        hidden = self.norm(x)
        query, key, value = (part(hidden).flatten(2).transpose(1, 2).unsqueeze(1) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj(attended.squeeze(1).transpose(1, 2).reshape(x.shape))


class ResidualBlock(nn.Module):
    """Pre-activation residual block.

    The weights released with MaskGIT differ from most VQGANs in two ways. The convolutions have no
    bias. Where the number of channels changes, the shortcut is a 1x1 convolution of the block's
    **output*, not of its input. With a shortcut from the output all values pass through a group
    norm. It removes most of the information that is constant over an image, so that colours are
    learned late.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        options: Source of the shortcut, bias, groups of the norms. Defaults to None: MaskGIT's.
        attention: Whether the block ends with attention. Defaults to False.
    """

    def __init__(
        self, in_channels: int, out_channels: int, options: ConvOptions | None = None, attention: bool = False
    ) -> None:
        super().__init__()
        options = options or ConvOptions()
        self.norm1 = options.group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=options.conv_bias)
        self.norm2 = options.group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=options.conv_bias)
        self.shortcut_from = options.shortcut_from
        self.shortcut = None
        if in_channels != out_channels:
            source_channels = in_channels if self.shortcut_from == 'input' else out_channels
            self.shortcut = nn.Conv2d(source_channels, out_channels, 1, bias=options.conv_bias)
        self.attn = SpatialAttention(out_channels, options) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.shortcut is not None:
            x = self.shortcut(x if self.shortcut_from == 'input' else hidden)
        hidden = hidden + x
        return hidden if self.attn is None else self.attn(hidden)


def _level(in_channels: int, out_channels: int, depth: int, options: ConvOptions, attention: bool) -> nn.Sequential:
    """Residual blocks of one level; the first changes the number of channels."""
    widths = [in_channels] + [out_channels] * depth
    return nn.Sequential(*(ResidualBlock(i, o, options, attention) for i, o in zip(widths, widths[1:], strict=False)))


def _middle(channels: int, depth: int, options: ConvOptions) -> nn.Sequential:
    """Residual blocks of one width; the first may end with attention."""
    return nn.Sequential(
        *(ResidualBlock(channels, channels, options, options.mid_attn and index == 0) for index in range(depth))
    )


def _fast_format(x: Tensor) -> Tensor:
    """The map (B, C, H, W) in the memory format in which the convolutions after it are fastest.

    All layers of encoder and decoder keep the format of their input.
    """
    # convolutions of the CPU reorder other maps before and after their kernel; on a GPU group norm
    # would change the format back
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == 'cpu' else x


def _conv_of_doubled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution of a map that is doubled by nearest neighbour.

    On the CPU it is one transposed convolution. Each pixel of the doubled map lies in a square of
    four equal ones, so 2 x 2 sums of weights replace 3 x 3 weights, with 4 of 9 multiplications.

    Args:
        conv: The convolution, padded by 1.
        x: (B, C, H, W).

    Returns:
        (B, out_channels, 2 * H, 2 * W).
    """
    if x.device.type != 'cpu':
        return conv(F.interpolate(x, scale_factor=2, mode='nearest'))
    weight = conv.weight.flip(2, 3).transpose(0, 1)
    weight = F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))
    weight = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.conv_transpose2d(x, weight, conv.bias, stride=2, padding=1)


class ConvEncoder(nn.Module):
    """Images to latents; the stride is ``stem_stride`` * 2 ** (number of levels - 1).

    Args:
        in_channels: Channels of the images.
        level_channels: Width of each level, from the finest to the coarsest. The map is halved
            between levels.
        latent_channels: Channels of the latents.
        num_res_blocks: Residual blocks in each level.
        num_mid_blocks: Residual blocks after the coarsest level.
        stem_stride: Factor of the pixel-unshuffle before the first convolution; 1 for none.
        options: See :class:`ConvOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        level_channels: Sequence[int],
        latent_channels: int,
        num_res_blocks: int,
        num_mid_blocks: int,
        stem_stride: int,
        options: ConvOptions,
    ) -> None:
        super().__init__()
        self.stem_stride = stem_stride
        self.conv_in = nn.Conv2d(in_channels * stem_stride**2, level_channels[0], 3, padding=1, bias=options.conv_bias)
        widths = [level_channels[0], *level_channels]
        self.levels = nn.ModuleList(
            _level(i, o, num_res_blocks, options, index in options.attn_levels)
            for index, (i, o) in enumerate(zip(widths, level_channels, strict=False))
        )
        self.downsamples = None
        if options.downsample == 'conv':
            self.downsamples = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2) for width in level_channels[:-1])
        self.mid = _middle(level_channels[-1], num_mid_blocks, options)
        self.norm_out = options.group_norm(level_channels[-1])
        kernel = options.encoder_out_kernel
        self.conv_out = nn.Conv2d(level_channels[-1], latent_channels, kernel, padding=kernel // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to latents (B, latent_channels, H / s, W / s)."""
        x = self.conv_in(_fast_format(F.pixel_unshuffle(images, self.stem_stride)))
        for index, level in enumerate(self.levels):
            x = level(self._halve(x, index - 1) if index else x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))

    def _halve(self, x: Tensor, level: int) -> Tensor:
        if self.downsamples is None:
            return F.avg_pool2d(x, 2)
        # taming pads on the right and at the bottom only
        return self.downsamples[level](F.pad(x, (0, 1, 0, 1)))


class ConvDecoder(nn.Module):
    """Latents to images, the mirror of :class:`ConvEncoder`.

    Between levels the map is doubled by nearest neighbour and a 3x3 convolution.

    Args:
        out_channels: Channels of the images.
        level_channels: See :class:`ConvEncoder`; also from the finest to the coarsest.
        latent_channels: See :class:`ConvEncoder`.
        num_res_blocks: See :class:`ConvEncoder`.
        num_mid_blocks: Residual blocks before the coarsest level.
        stem_stride: Factor of the pixel-shuffle after the last convolution; 1 for none.
        options: See :class:`ConvOptions`.
    """

    def __init__(
        self,
        out_channels: int,
        level_channels: Sequence[int],
        latent_channels: int,
        num_res_blocks: int,
        num_mid_blocks: int,
        stem_stride: int,
        options: ConvOptions,
    ) -> None:
        super().__init__()
        coarse_to_fine = list(reversed(level_channels))
        last = len(coarse_to_fine) - 1
        self.stem_stride = stem_stride
        self.conv_in = nn.Conv2d(latent_channels, coarse_to_fine[0], 3, padding=1)
        self.mid = _middle(coarse_to_fine[0], num_mid_blocks, options)
        widths = [coarse_to_fine[0], *coarse_to_fine]
        self.levels = nn.ModuleList(
            _level(i, o, num_res_blocks, options, last - index in options.attn_levels)
            for index, (i, o) in enumerate(zip(widths, coarse_to_fine, strict=False))
        )
        self.upsamples = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in coarse_to_fine[:-1])
        self.norm_out = options.group_norm(coarse_to_fine[-1])
        self.conv_out = nn.Conv2d(coarse_to_fine[-1], out_channels * stem_stride**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_channels, h, w) to images (B, out_channels, h * s, w * s)."""
        x = self.mid(self.conv_in(_fast_format(latents)))
        for index, level in enumerate(self.levels):
            if index:
                x = _conv_of_doubled(self.upsamples[index - 1], x)
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.stem_stride)
