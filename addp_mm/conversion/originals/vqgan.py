# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published forward passes of MaskGIT's and taming's VQGANs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from addp_mm.conversion.agreement import compared
from addp_mm.conversion.originals.layers import OriginalLayers


class OriginalVQGAN:
    """A VQGAN computed from its state dict (arXiv 2012.09841; MaskGIT's arXiv 2202.04200).

    Attention and the convolutions around the codebook are applied if there are weights for them.
    MaskGIT's VQGAN, as released with MAGE and ADDP, halves maps by averaging. Its blocks that
    change the width take the shortcut from their output. Taming's VQGAN halves maps by a strided
    convolution, and its shortcuts start at the input.

    Args:
        state_dict: Weights in the original layout.
        taming: Whether to use taming's implementation instead of MaskGIT's.
        input_range: Values of black and white. Defaults to (0.0, 1.0).
        num_groups: Groups of the norms. Defaults to 32.
        prefix: Prefix of the weights' names. Defaults to ''.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        taming: bool,
        input_range: Sequence[float] = (0.0, 1.0),
        num_groups: int = 32,
        prefix: str = '',
    ) -> None:
        self.layers, self.taming, self.num_groups = OriginalLayers(state_dict, prefix), taming, num_groups
        self.low, self.high = input_range

    @property
    def codes(self) -> Tensor:
        """The codebook, (K, C)."""
        return self.layers['quantize.embedding.weight']

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            Latents (B, C, h, w) and their distances to the codes, (B, h * w, K).
        """
        layers = self.layers
        num_levels = layers.count(r'encoder\.down\.(\d+)')
        x = layers.conv('encoder.conv_in', images * (self.high - self.low) + self.low)
        for level in range(num_levels):
            x = self._level(f'encoder.down.{level}', x)
            if level < num_levels - 1:
                x = self._halved(f'encoder.down.{level}.downsample.conv', x)
        x = layers.conv('encoder.conv_out', self._norm_swish('encoder.norm_out', self._middle('encoder', x)))
        latents = layers.conv('quant_conv', x) if 'quant_conv' in layers else x
        flat = latents.flatten(2).transpose(1, 2)
        return latents, torch.cdist(
            flat, self.codes.expand(len(flat), -1, -1), compute_mode='donot_use_mm_for_euclid_dist'
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, H, W), with 0 for black and 1 for white."""
        layers = self.layers
        x = layers.conv('post_quant_conv', latents) if 'post_quant_conv' in layers else latents
        x = self._middle('decoder', layers.conv('decoder.conv_in', x))
        for level in reversed(range(layers.count(r'decoder\.up\.(\d+)'))):
            x = self._level(f'decoder.up.{level}', x)
            if level:
                x = layers.conv(f'decoder.up.{level}.upsample.conv', F.interpolate(x, scale_factor=2, mode='nearest'))
        x = layers.conv('decoder.conv_out', self._norm_swish('decoder.norm_out', x))
        return (x - self.low) / (self.high - self.low)

    def _halved(self, name: str, x: Tensor) -> Tensor:
        # taming only pads on the right and at the bottom
        return (
            self.layers.conv(name, F.pad(x, (0, 1, 0, 1)), stride=2, padding=0) if self.taming else F.avg_pool2d(x, 2)
        )

    def _middle(self, half: str, x: Tensor) -> Tensor:
        for number in range(1, 1 + self.layers.count(rf'{half}\.mid\.block_(\d+)')):
            x = self._block(f'{half}.mid.block_{number}', x)
            if number == 1:
                x = self._attention(f'{half}.mid.attn_1', x)
        return x

    def _level(self, name: str, x: Tensor) -> Tensor:
        for index in range(self.layers.count(rf'{name}\.block\.(\d+)')):
            x = self._attention(f'{name}.attn.{index}', self._block(f'{name}.block.{index}', x))
        return x

    def _block(self, name: str, x: Tensor) -> Tensor:
        hidden = self.layers.conv(f'{name}.conv1', self._norm_swish(f'{name}.norm1', x))
        hidden = self.layers.conv(f'{name}.conv2', self._norm_swish(f'{name}.norm2', hidden))
        if f'{name}.nin_shortcut' in self.layers:
            x = self.layers.conv(f'{name}.nin_shortcut', x if self.taming else hidden)
        return x + hidden

    def _attention(self, name: str, x: Tensor) -> Tensor:
        """Attention over all positions with one head, if there are weights for it."""
        if f'{name}.q' not in self.layers:
            return x
        normed = self._norm(f'{name}.norm', x)
        query, key, value = (self.layers.conv(f'{name}.{part}', normed).flatten(2) for part in 'qkv')
        scores = query.transpose(1, 2) @ key / x.shape[1] ** 0.5
        seen = (value @ scores.softmax(-1).transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.layers.conv(f'{name}.proj_out', seen)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, *self.layers.pair(name), eps=1e-6)

    def _norm_swish(self, name: str, x: Tensor) -> Tensor:
        return F.silu(self._norm(name, x))


def tokenizer_agrees(tokenizer: Any, original: OriginalVQGAN) -> str:
    """Compare encoding and decoding of a converted tokenizer with the original, on noise.

    Ids are compared by the distance of their codes, because rounding decides between two codes at
    the same distance.

    Args:
        tokenizer: :class:`~addp_mm.models.tokenizers.VQTokenizer` with the converted weights.
        original: The original network.

    Returns:
        The result of :func:`~addp_mm.conversion.agreement.compared`.

    Raises:
        ValueError: They disagree.
    """
    images = torch.rand(1, tokenizer.in_channels, *(4 * tokenizer.stride,) * 2)
    ids, codes = tokenizer.encode(images)
    latents, distances = original.encode(images)
    return f'stride {tokenizer.stride}, ' + compared(
        latents=(tokenizer.encode_continuous(images), latents),
        distances_of_ids=(distances.gather(2, ids[..., None])[..., 0], distances.amin(2)),
        reconstructions=(tokenizer.decode(codes), original.decode(codes)),
    )
