# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from addp_mm.models.tokenizers.conv_layers import ConvDecoder, ConvEncoder
from addp_mm.registry import MODELS


@MODELS.register_module()
class VQTokenizer(BaseModule):
    """Convolutional VQGAN without attention: images to token ids, latents to images.

    The defaults are the published layout (stride 16, 1024 codes of 256 dimensions; VQGAN of MaskGIT as released with
    MAGE and ADDP). A folded stem and normalised codes are options for small images.

    Args:
        base_channels: Width of the first level.
        channel_mults: Width of each level in units of ``base_channels``; one level less than halvings.
        codebook_size: Number of codes.
        embed_dims: Dimensions of a code, which are also the channels of the latents.
        num_res_blocks: Residual blocks a level.
        num_mid_blocks: Residual blocks in the middle of the encoder and of the decoder.
        decoder_res_blocks: Residual blocks a level of the decoder, ``num_res_blocks`` if None.
        stem_stride: Factor of the pixel-unshuffle in front of the encoder (undone behind the decoder).
        normalize_codes: Whether latents and codes lie on the unit sphere, so that the nearest code is the one of
            the largest cosine (ViT-VQGAN, arXiv 2110.04627).
        shortcut_from: Where the residual blocks that widen take their shortcut: 'output' as released, or 'input'.
        in_channels: Channels of the images.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: If a width is no multiple of 32, the number of groups of the normalisation, or ``shortcut_from``
            is neither 'output' nor 'input'.

    Example:
        >>> import torch
        >>> tokenizer = VQTokenizer(base_channels=32, embed_dims=16)
        >>> ids, latents = tokenizer.encode(torch.rand(1, 3, 64, 64))
        >>> ids.shape, latents.shape, tokenizer.decode(latents).shape
        (torch.Size([1, 16]), torch.Size([1, 16, 4, 4]), torch.Size([1, 3, 64, 64]))
    """

    def __init__(self, base_channels: int = 128, channel_mults: Sequence[int] = (1, 1, 2, 2, 4),
                 codebook_size: int = 1024, embed_dims: int = 256, num_res_blocks: int = 2, num_mid_blocks: int = 2,
                 decoder_res_blocks: int | None = None, stem_stride: int = 1, normalize_codes: bool = False,
                 shortcut_from: str = 'output', in_channels: int = 3, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        level_channels = [base_channels * mult for mult in channel_mults]
        if any(width % 32 for width in level_channels):
            raise ValueError(f'every level of the tokenizer must be a multiple of 32 channels wide, got '
                             f'{level_channels} from base_channels={base_channels}, channel_mults={channel_mults}')
        if shortcut_from not in ('output', 'input'):
            raise ValueError(f"shortcut_from must be 'output' or 'input', got {shortcut_from!r}")
        self.stride = stem_stride * 2**(len(level_channels) - 1)
        self.codebook_size, self.embed_dims = codebook_size, embed_dims
        self.normalize_codes = normalize_codes
        self.encoder = ConvEncoder(in_channels, level_channels, embed_dims, num_res_blocks, num_mid_blocks,
                                   stem_stride, shortcut_from)
        self.decoder = ConvDecoder(in_channels, level_channels, embed_dims, decoder_res_blocks or num_res_blocks,
                                   num_mid_blocks, stem_stride, shortcut_from)
        self.codes = nn.Embedding(codebook_size, embed_dims)
        nn.init.uniform_(self.codes.weight, -1 / codebook_size, 1 / codebook_size)
        if normalize_codes:
            nn.init.normal_(self.codes.weight)

    @property
    def codebook(self) -> Tensor:
        """The vectors that :meth:`decode` takes, (codebook_size, embed_dims)."""
        return F.normalize(self.codes.weight, dim=1) if self.normalize_codes else self.codes.weight

    def encode_continuous(self, images: Tensor) -> Tensor:
        """Latents before quantisation.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            (B, C, H / stride, W / stride).

        Raises:
            ValueError: If height or width is no multiple of the stride.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f'images of {height}x{width} px cannot be tokenized: height and width must be multiples '
                             f'of the tokenizer\'s stride {self.stride}; resize or crop them in the pipeline')
        latents = self.encoder(images)
        return F.normalize(latents, dim=1) if self.normalize_codes else latents

    def quantize(self, latents: Tensor) -> Tensor:
        """Ids of the nearest codes by Euclidean distance.

        Args:
            latents: (B, C, h, w).

        Returns:
            (B, h * w) int64, row by row.
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
        """Images (B, 3, H, W) in [0, 1] to ids (B, h * w) and quantised latents (B, C, h, w)."""
        latents = self.encode_continuous(images)
        ids = self.quantize(latents)
        return ids, self.lookup(ids, *latents.shape[-2:])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to images (B, 3, h * stride, w * stride), about [0, 1] and not clamped."""
        return self.decoder(latents)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruction of images, (B, 3, H, W) in [0, 1], clamped."""
        return self.decode(self.encode(images)[1]).clamp(0, 1)
