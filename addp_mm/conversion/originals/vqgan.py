# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a VQGAN's weights make of images in MaskGIT's and in taming's implementation: the other side of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from addp_mm.conversion.originals.layers import OriginalLayers
from addp_mm.conversion.write_converted import compared


class OriginalVQGAN:
    """A VQGAN run from its state dict (arXiv 2012.09841; MaskGIT's arXiv 2202.04200).

    Attention and the convolutions around the codebook are where there are weights for them.
    MaskGIT's, as released with MAGE and ADDP, halves by averaging and takes a widening block's
    shortcut from the block's output; taming's halves by a strided convolution and takes the
    shortcut from the input.

    Args:
        state_dict: Weights in the original layout.
        taming: Whose implementation.
        input_range: What it takes black and white for.
        num_groups: Groups of the norms.
        prefix: What the weights' names start with.
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
        """(K, C)."""
        return self.layers['quantize.embedding.weight']

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] to latents (B, C, h, w) and their distances to the codes, (B, h * w, K)."""
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
        """Latents (B, C, h, w) to images (B, 3, H, W), 0 black and 1 white."""
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
        # taming pads on the right and at the bottom alone
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
        """Over all places, by one head; nothing where there are no weights for it."""
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


def tokenizer_agrees(tokenizer, original: OriginalVQGAN) -> str:
    """Hold a converted tokenizer against the original, both ways, on noise.

    Args:
        tokenizer: :class:`~addp_mm.models.tokenizers.VQTokenizer`.
        original: The network of the weights that were converted.

    Returns:
        In words what :func:`~addp_mm.conversion.write_converted.compared` says. Ids are held by
        their distances: which of two codes at the same distance is taken is a matter of rounding.

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
