# Copyright (c) addp_mm contributors. Apache-2.0.
"""Small VQGANs with random weights in MaskGIT's and taming's layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Sizes:
    """Sizes of a VQGAN. The defaults are a small one in taming's layout."""

    taming: bool = True
    channels: int = 32
    mults: tuple[int, ...] = (1, 1, 2)
    blocks: int = 1
    attn_levels: tuple[int, ...] = (2,)
    z_channels: int = 6
    embed_dim: int = 5
    codes: int = 16

    @property
    def widths(self) -> list[int]:
        return [self.channels * mult for mult in self.mults]


def random_state_dict(sizes: Sizes) -> dict[str, Tensor]:
    """Random weights under the published names, so large that each affects the result."""
    state = {}

    def conv(name, inputs, outputs, side, bias=True):
        state[f'{name}.weight'] = torch.randn(outputs, inputs, side, side) / (inputs * side * side) ** 0.5
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
