# Copyright (c) addp_mm contributors. Apache-2.0.
"""VQGANs of MaskGIT's and taming's kind, run straight from a state dict in the published layout.

Written from the published facts, without the package: what a converted tokenizer is held against.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Sizes:
    """A VQGAN; the defaults are a small one of taming's kind."""
    taming: bool = True
    channels: int = 32
    mults: tuple[int, ...] = (1, 1, 2)
    blocks: int = 1
    attn_levels: tuple[int, ...] = (2, )
    z_channels: int = 6
    embed_dim: int = 5
    codes: int = 16

    @property
    def widths(self) -> list[int]:
        return [self.channels * mult for mult in self.mults]


def random_state_dict(sizes: Sizes) -> dict[str, Tensor]:
    """Random weights under the published names; of a size at which every part tells in the result."""
    state = {}

    def conv(name, inputs, outputs, side, bias=True):
        state[f'{name}.weight'] = torch.randn(outputs, inputs, side, side) / (inputs * side * side)**0.5
        if bias:
            state[f'{name}.bias'] = torch.randn(outputs) * 0.2

    def norm(name, channels):
        state[f'{name}.weight'], state[f'{name}.bias'] = 1 + 0.2 * torch.randn(channels), 0.2 * torch.randn(channels)

    def block(name, inputs, outputs):
        norm(f'{name}.norm1', inputs)
        conv(f'{name}.conv1', inputs, outputs, 3, sizes.taming)
        norm(f'{name}.norm2', outputs)
        conv(f'{name}.conv2', outputs, outputs, 3, sizes.taming)
        if inputs != outputs:
            conv(f'{name}.nin_shortcut', inputs if sizes.taming else outputs, outputs, 1, sizes.taming)

    def attention(name, channels):
        norm(f'{name}.norm', channels)
        for part in ('q', 'k', 'v', 'proj_out'):
            conv(f'{name}.{part}', channels, channels, 1)

    def middle(half):
        block(f'{half}.mid.block_1', widths[-1], widths[-1])
        block(f'{half}.mid.block_2', widths[-1], widths[-1])
        if sizes.taming:
            attention(f'{half}.mid.attn_1', widths[-1])

    widths, last = sizes.widths, len(sizes.mults) - 1
    conv('encoder.conv_in', 3, sizes.channels, 3, sizes.taming)
    current = sizes.channels
    for level, width in enumerate(widths):
        for index in range(sizes.blocks):
            block(f'encoder.down.{level}.block.{index}', current, width)
            current = width
            if level in sizes.attn_levels:
                attention(f'encoder.down.{level}.attn.{index}', width)
        if sizes.taming and level < last:
            conv(f'encoder.down.{level}.downsample.conv', width, width, 3)
    middle('encoder')
    norm('encoder.norm_out', current)
    conv('encoder.conv_out', current, sizes.z_channels, 3 if sizes.taming else 1)
    conv('decoder.conv_in', sizes.z_channels, current, 3)
    middle('decoder')
    for level in reversed(range(len(widths))):
        for index in range(sizes.blocks + sizes.taming):
            block(f'decoder.up.{level}.block.{index}', current, widths[level])
            current = widths[level]
            if level in sizes.attn_levels:
                attention(f'decoder.up.{level}.attn.{index}', current)
        if level:
            conv(f'decoder.up.{level}.upsample.conv', current, current, 3)
    norm('decoder.norm_out', current)
    conv('decoder.conv_out', current, 3, 3)
    code_dims = sizes.embed_dim if sizes.taming else sizes.z_channels
    state['quantize.embedding.weight'] = torch.randn(sizes.codes, code_dims)
    if sizes.taming:
        conv('quant_conv', sizes.z_channels, sizes.embed_dim, 1)
        conv('post_quant_conv', sizes.embed_dim, sizes.z_channels, 1)
    return state


class Reference:
    """The network of a state dict; encodes and decodes images in the range that its layout takes."""

    def __init__(self, state: dict[str, Tensor], sizes: Sizes) -> None:
        self.state, self.sizes = state, sizes

    def conv(self, name, x, stride=1, padding=None):
        weight = self.state[f'{name}.weight']
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.state.get(f'{name}.bias'), stride, padding)

    def norm(self, name, x):
        groups = x.reshape(len(x), 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
        x = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return x * self.state[f'{name}.weight'].view(1, -1, 1, 1) + self.state[f'{name}.bias'].view(1, -1, 1, 1)

    def norm_swish(self, name, x):
        x = self.norm(name, x)
        return x * x.sigmoid()

    def block(self, name, x):
        hidden = self.conv(f'{name}.conv1', self.norm_swish(f'{name}.norm1', x))
        hidden = self.conv(f'{name}.conv2', self.norm_swish(f'{name}.norm2', hidden))
        if x.shape[1] == hidden.shape[1]:
            return x + hidden
        return self.conv(f'{name}.nin_shortcut', x if self.sizes.taming else hidden) + hidden

    def attention(self, name, x):
        normed = self.norm(f'{name}.norm', x)
        query, key, value = (self.conv(f'{name}.{part}', normed).flatten(2) for part in 'qkv')
        weights = (torch.einsum('bcq,bck->bqk', query, key) / x.shape[1]**0.5).softmax(-1)
        seen = torch.einsum('bqk,bck->bcq', weights, value).reshape(x.shape)
        return x + self.conv(f'{name}.proj_out', seen)

    def level(self, name, x, blocks, attends):
        for index in range(blocks):
            x = self.block(f'{name}.block.{index}', x)
            if attends:
                x = self.attention(f'{name}.attn.{index}', x)
        return x

    def middle(self, half, x):
        x = self.block(f'{half}.mid.block_1', x)
        if self.sizes.taming:
            x = self.attention(f'{half}.mid.attn_1', x)
        return self.block(f'{half}.mid.block_2', x)

    def encode(self, images):
        """Images to latents before quantisation, and the ids of the nearest codes (B, h * w)."""
        x = self.conv('encoder.conv_in', images)
        for level in range(len(self.sizes.mults)):
            x = self.level(f'encoder.down.{level}', x, self.sizes.blocks, level in self.sizes.attn_levels)
            if level < len(self.sizes.mults) - 1 and self.sizes.taming:
                x = torch.cat([x, torch.zeros_like(x[..., :1])], dim=3)
                x = torch.cat([x, torch.zeros_like(x[..., :1, :])], dim=2)
                x = self.conv(f'encoder.down.{level}.downsample.conv', x, stride=2, padding=0)
            elif level < len(self.sizes.mults) - 1:
                x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        x = self.conv('encoder.conv_out', self.norm_swish('encoder.norm_out', self.middle('encoder', x)))
        latents = self.conv('quant_conv', x) if self.sizes.taming else x
        codes = self.state['quantize.embedding.weight']
        return latents, torch.cdist(latents.flatten(2).transpose(1, 2), codes).argmin(-1)

    def decode(self, latents):
        x = self.conv('post_quant_conv', latents) if self.sizes.taming else latents
        x = self.middle('decoder', self.conv('decoder.conv_in', x))
        for level in reversed(range(len(self.sizes.mults))):
            blocks = self.sizes.blocks + self.sizes.taming
            x = self.level(f'decoder.up.{level}', x, blocks, level in self.sizes.attn_levels)
            if level:
                x = self.conv(f'decoder.up.{level}.upsample.conv', x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return self.conv('decoder.conv_out', self.norm_swish('decoder.norm_out', x))
