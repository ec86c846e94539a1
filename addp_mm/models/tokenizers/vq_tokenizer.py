# Copyright (c) addp_mm contributors. Apache-2.0.
"""The VQ tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers import ImageSizeError
from addp_mm.models.layers.component import Component
from addp_mm.models.tokenizers.conv_layers import ConvDecoder, ConvEncoder, ConvOptions
from addp_mm.registry import MODELS


@MODELS.register_module()
class VQTokenizer(Component):
    """Convolutional VQGAN: images to token ids, latents to images.

    The defaults are the published layout: stride 16, 1024 codes of 256 dimensions (the VQGAN of
    MaskGIT, arXiv 2202.04200, as released with MAGE and ADDP). Taming's layout (arXiv 2012.09841)
    is ``shortcut_from='input', conv_bias=True, downsample='conv', mid_attn=True,
    encoder_out_kernel=3, quant_conv=True, input_range=(-1, 1)`` with ``decoder_res_blocks`` =
    ``num_res_blocks`` + 1 and attention at the coarsest level in ``attn_levels``. ``stem_stride``
    and ``normalize_codes`` serve small images.

    Args:
        base_channels: Width of the first level. Defaults to 128.
        channel_mults: Width of each level in units of ``base_channels``, from the finest to the
            coarsest. The map is halved between levels. Defaults to (1, 1, 2, 2, 4).
        codebook_size: Number of codes. Defaults to 1024.
        embed_dims: Dimensions of a code, which are also the channels of the latents. Defaults to
            256.
        num_res_blocks: Residual blocks in each level. Defaults to 2.
        num_mid_blocks: Residual blocks in the middle of the encoder and of the decoder. Defaults to
            2.
        decoder_res_blocks: Residual blocks in each level of the decoder. Defaults to None:
            ``num_res_blocks``.
        stem_stride: Factor of the pixel-unshuffle before the encoder; the decoder reverses it.
            Defaults to 1: none.
        normalize_codes: Whether latents and codes have length 1, so that the nearest code has the
            largest cosine (ViT-VQGAN, arXiv 2110.04627). Defaults to False.
        shortcut_from: Source of the shortcut in residual blocks that change the width: 'output' as
            released, or 'input'. Defaults to 'output'.
        in_channels: Channels of the images. Defaults to 3.
        conv_bias: Whether the convolutions of the residual blocks and the encoder's first have a
            bias. Defaults to False.
        downsample: How the encoder halves maps: 'avg', 2x2 average pooling, or 'conv', a 3x3
            convolution of stride 2 with zeros on the right and at the bottom. Defaults to 'avg'.
        attn_levels: Levels, counted from the finest (0), whose residual blocks end with attention
            over all positions. Taming names them by resolution: at 256 px, 16 is level 4. Defaults
            to ().
        mid_attn: Whether the first residual block in the middle of encoder and decoder ends with
            attention. Defaults to False.
        encoder_out_kernel: Kernel size of the encoder's last convolution, 1 or 3. Defaults to 1.
        quant_conv: Whether there is a 1x1 convolution before and after the quantisation. Defaults
            to False.
        z_channels: With ``quant_conv``: channels between it and encoder and decoder. Defaults to
            None: ``embed_dims``.
        input_range: Values of black and white that the weights expect. Inputs and outputs of this
            class are in [0, 1] in any case. Defaults to (0, 1).
        num_groups: Groups of the group norms. Defaults to 32.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: A width is not a multiple of ``num_groups``, or an option is not one of its
            values or contradicts another one.

    Example:
        >>> import torch
        >>> tokenizer = VQTokenizer(base_channels=32, embed_dims=16)
        >>> ids, latents = tokenizer.encode(torch.rand(1, 3, 64, 64))
        >>> ids.shape, latents.shape, tokenizer.decode(latents).shape
        (torch.Size([1, 16]), torch.Size([1, 16, 4, 4]), torch.Size([1, 3, 64, 64]))
    """

    component = 'tokenizer'
    required_weights = ('encoder.', 'decoder.', 'codes.')

    def __init__(
        self,
        base_channels: int = 128,
        channel_mults: Sequence[int] = (1, 1, 2, 2, 4),
        codebook_size: int = 1024,
        embed_dims: int = 256,
        num_res_blocks: int = 2,
        num_mid_blocks: int = 2,
        decoder_res_blocks: int | None = None,
        stem_stride: int = 1,
        normalize_codes: bool = False,
        shortcut_from: str = 'output',
        in_channels: int = 3,
        conv_bias: bool = False,
        downsample: str = 'avg',
        attn_levels: Sequence[int] = (),
        mid_attn: bool = False,
        encoder_out_kernel: int = 1,
        quant_conv: bool = False,
        z_channels: int | None = None,
        input_range: Sequence[float] = (0.0, 1.0),
        num_groups: int = 32,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        options = ConvOptions(
            shortcut_from, conv_bias, num_groups, downsample, tuple(attn_levels), mid_attn, encoder_out_kernel
        )
        level_channels = [base_channels * mult for mult in channel_mults]
        if any(width % num_groups for width in level_channels):
            raise ValueError(
                f'every level of the tokenizer must have a multiple of num_groups={num_groups} channels, got '
                f'{level_channels} from base_channels={base_channels}, channel_mults={tuple(channel_mults)}'
            )
        _check_options(options, len(level_channels), num_mid_blocks, quant_conv, z_channels, input_range)
        self.stride = stem_stride * 2 ** (len(level_channels) - 1)
        self.in_channels = in_channels
        self.codebook_size, self.embed_dims = codebook_size, embed_dims
        self.normalize_codes = normalize_codes
        self.input_range = tuple(float(value) for value in input_range)
        z_channels = z_channels or embed_dims
        self.encoder = ConvEncoder(
            in_channels, level_channels, z_channels, num_res_blocks, num_mid_blocks, stem_stride, options
        )
        self.decoder = ConvDecoder(
            in_channels,
            level_channels,
            z_channels,
            decoder_res_blocks or num_res_blocks,
            num_mid_blocks,
            stem_stride,
            options,
        )
        self.quant_conv = nn.Conv2d(z_channels, embed_dims, 1) if quant_conv else None
        self.post_quant_conv = nn.Conv2d(embed_dims, z_channels, 1) if quant_conv else None
        self.codes = nn.Embedding(codebook_size, embed_dims)
        nn.init.uniform_(self.codes.weight, -1 / codebook_size, 1 / codebook_size)
        if normalize_codes:
            nn.init.normal_(self.codes.weight)

    @property
    def codebook(self) -> Tensor:
        """Vectors of the codes as :meth:`decode` expects them, (codebook_size, embed_dims)."""
        return F.normalize(self.codes.weight, dim=1) if self.normalize_codes else self.codes.weight

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size, in pixels, can be tokenized.

        Raises:
            ImageSizeError: A side is not a multiple of the stride.
        """
        if height % self.stride or width % self.stride:
            raise ImageSizeError(
                f'images of {height}x{width} px cannot be tokenized: height and width must be '
                f"multiples of the tokenizer's stride {self.stride}; resize or crop them in the "
                'pipeline'
            )

    def encode_continuous(self, images: Tensor) -> Tensor:
        """Latents before quantisation.

        Args:
            images: (B, in_channels, H, W) in [0, 1].

        Returns:
            (B, C, H / stride, W / stride).

        Raises:
            ImageSizeError: Height or width is not a multiple of the stride.
            ValueError: The images have another number of channels.
        """
        channels, height, width = images.shape[-3:]
        if channels != self.in_channels:
            raise ValueError(
                f'the tokenizer needs images of {self.in_channels} channels, got {channels}: set its '
                f'in_channels={channels}, or load the images with {self.in_channels} channels'
            )
        self.check_image_size(height, width)
        low, high = self.input_range
        latents = self.encoder(images * (high - low) + low)
        if self.quant_conv is not None:
            latents = self.quant_conv(latents)
        return F.normalize(latents, dim=1) if self.normalize_codes else latents

    def quantize(self, latents: Tensor) -> Tensor:
        """Ids of the nearest codes by Euclidean distance.

        Args:
            latents: (B, C, h, w).

        Returns:
            (B, h * w) int64, row-major.
        """
        flat = latents.flatten(2).transpose(1, 2).float()
        codebook = self.codebook.float()
        # |z - e|^2 without |z|^2, which is the same for every code
        distances = codebook.square().sum(1) - 2 * flat @ codebook.t()
        return distances.argmin(-1)

    def lookup(self, ids: Tensor, height: int, width: int) -> Tensor:
        """Codes of ids, (B, height * width) -> (B, C, height, width)."""
        return F.embedding(ids, self.codebook).transpose(1, 2).unflatten(2, (height, width))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenize images.

        Args:
            images: (B, in_channels, H, W) in [0, 1].

        Returns:
            Ids (B, h * w) int64 and quantised latents (B, C, h, w).
        """
        latents = self.encode_continuous(images)
        ids = self.quantize(latents)
        return ids, self.lookup(ids, *latents.shape[-2:])

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents.

        Args:
            latents: (B, C, h, w).

        Returns:
            Images (B, in_channels, h * stride, w * stride), about [0, 1], not clamped.
        """
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        images = self.decoder(latents)
        low, high = self.input_range
        return (images - low) / (high - low)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images (B, in_channels, H, W) in [0, 1]; the result is clamped to [0, 1]."""
        return self.decode(self.encode(images)[1]).clamp(0, 1)


def _check_options(
    options: ConvOptions,
    num_levels: int,
    num_mid_blocks: int,
    quant_conv: bool,
    z_channels: int | None,
    input_range: Sequence[float],
) -> None:
    """Check options that contradict each other."""
    levels = options.attn_levels
    if len(set(levels)) != len(levels) or any(not 0 <= level < num_levels for level in levels):
        raise ValueError(
            f'attn_levels must name levels 0 (finest) to {num_levels - 1} of channel_mults, each once; they are '
            f'not resolutions. Got {levels}'
        )
    if options.mid_attn and num_mid_blocks < 1:
        raise ValueError(
            f'mid_attn=True adds attention to the first middle block, but num_mid_blocks is {num_mid_blocks}'
        )
    if z_channels is not None and not quant_conv:
        raise ValueError(
            f'z_channels={z_channels} needs quant_conv, which converts them to embed_dims and back: set '
            'quant_conv=True, or remove z_channels'
        )
    if len(input_range) != 2 or not input_range[0] < input_range[1]:
        raise ValueError(f'input_range must be (black, white) with black < white, got {input_range}')
