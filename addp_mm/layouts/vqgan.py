# Copyright (c) addp_mm contributors. Apache-2.0.
"""VQGAN checkpoints: MaskGIT's, as released with ADDP and MAGE, and taming-transformers'.

Both name their tensors as https://github.com/CompVis/taming-transformers does. Taming's VQGANs have
attention in the middle and at the coarsest level, biases, strided convolutions and convolutions
around the codebook, and take images in [-1, 1]. MaskGIT's has none of these and takes images in
[0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule, count, require, translate
from addp_mm.layouts.layout import Layout

#: Tensors that taming's training saves and the tokenizer does not use: discriminator and perceptual
#: loss, running means of an averaged codebook, random colours of label maps. latent-diffusion also
#: saves a moving average of all weights, under names without dots.
TAMING_UNUSED = (r'loss\..*', r'quantize\.embedding\.(cluster_size|embed_avg)', r'colorize', r'model_ema\..*')

_NEEDED = (
    'encoder.conv_in.weight',
    'encoder.levels.0.0.conv1.weight',
    'encoder.mid.0.conv1.weight',
    'encoder.conv_out.weight',
    'decoder.levels.0.0.conv1.weight',
    'decoder.conv_out.weight',
    'codes.weight',
)


def vqgan_rules(keys: Sequence[str] | Mapping[str, Tensor]) -> tuple[Rule, ...]:
    """Rules from a VQGAN's keys to those of :class:`~addp_mm.models.tokenizers.VQTokenizer`.

    The VQGAN counts its decoder levels from the finest, VQTokenizer from the coarsest.

    Args:
        keys: All keys of the VQGAN.
    """
    residual = rf'((?:norm|conv)[12]\.{WB})'
    attention = rf'(norm|q|k|v|proj)(?:_out)?\.{WB}'
    rules = [
        (rf'encoder\.conv_in\.{WB}', r'encoder.conv_in.\1'),
        (rf'decoder\.conv_in\.{WB}', r'decoder.conv_in.\1'),
        (rf'(encoder|decoder)\.(norm_out|conv_out)\.{WB}', r'\1.\2.\3'),
        (rf'encoder\.down\.(\d+)\.downsample\.conv\.{WB}', r'encoder.downsamples.\1.\2'),
        (rf'(encoder|decoder)\.mid\.attn_1\.{attention}', r'\1.mid.0.attn.\2.\3'),
        (rf'(quant_conv|post_quant_conv)\.{WB}', r'\1.\2'),
        (r'quantize\.embedding\.weight', 'codes.weight'),
    ]
    num_mid_blocks = count(keys, r'encoder\.mid\.block_(\d+)\.')
    rules += [
        (rf'(encoder|decoder)\.mid\.block_{number + 1}\.{residual}', rf'\1.mid.{number}.\2')
        for number in range(num_mid_blocks)
    ]
    num_levels = count(keys, r'decoder\.up\.(\d+)\.')
    levels = [(r'encoder\.down\.(\d+)', r'encoder.levels.\1')]
    for number in range(num_levels):
        from_coarsest = num_levels - 1 - number
        levels.append((rf'decoder\.up\.({number})', f'decoder.levels.{from_coarsest}'))
        rules.append((rf'decoder\.up\.{number}\.upsample\.conv\.{WB}', rf'decoder.upsamples.{from_coarsest}.\1'))
    for theirs, ours in levels:
        rules += [
            (rf'{theirs}\.block\.(\d+)\.{residual}', rf'{ours}.\2.\3'),
            (rf'{theirs}\.block\.(\d+)\.nin_shortcut\.{WB}', rf'{ours}.\2.shortcut.\3'),
            (rf'{theirs}\.attn\.(\d+)\.{attention}', rf'{ours}.\2.attn.\3.\4'),
        ]
    return tuple(rules)


def convert_maskgit(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert MaskGIT's VQGAN to the state dict of :class:`~addp_mm.models.tokenizers.VQTokenizer`.

    Args:
        state_dict: A VQGAN in MaskGIT's layout, bare.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: A key does not belong to the tokenizer, or the tokenizer is incomplete.
    """
    return _convert(state_dict, (), "MaskGIT's VQGAN")


def convert_taming(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert taming's VQGAN as :func:`convert_maskgit` does. :data:`TAMING_UNUSED` is left out."""
    return _convert(state_dict, TAMING_UNUSED, "taming's VQGAN")


def _convert(state_dict: Mapping[str, Tensor], unused: Sequence[str], name: str) -> dict[str, Tensor]:
    if 'quantize.proj.weight' in state_dict:
        raise ValueError(
            'the checkpoint has a Gumbel quantiser (quantize.proj.weight), which chooses codes by a convolution. '
            'VQTokenizer chooses the nearest code, so it cannot load these weights'
        )
    converted = translate(state_dict, vqgan_rules(state_dict), unused, name)
    require(converted, _NEEDED, f'a whole {name}')
    return converted


def tokenizer_args(
    converted: Mapping[str, Tensor], input_range: Sequence[float] = (0.0, 1.0), num_groups: int = 32
) -> dict:
    """Infer the arguments of :class:`~addp_mm.models.tokenizers.VQTokenizer` from its weights.

    Args:
        converted: Result of :func:`convert_maskgit` or :func:`convert_taming`.
        input_range: Values of black and white, which cannot be inferred from the weights. Defaults
            to (0.0, 1.0).
        num_groups: Groups of the norms, which cannot be inferred from the weights. Defaults to 32,
            as in all released VQGANs.

    Raises:
        ValueError: No VQTokenizer has these sizes.
    """
    base_channels, in_channels = converted['encoder.conv_in.weight'].shape[:2]
    widths = [
        len(converted[f'encoder.levels.{level}.0.conv1.weight'])
        for level in range(count(converted, r'encoder\.levels\.(\d+)'))
    ]
    codebook_size, embed_dims = converted['codes.weight'].shape
    z_channels, _, encoder_out_kernel, _ = converted['encoder.conv_out.weight'].shape
    quant_conv = 'quant_conv.weight' in converted
    if widths[0] != base_channels or any(width % base_channels for width in widths):
        raise ValueError(
            f'VQTokenizer cannot represent this VQGAN: the levels have {widths} channels, not multiples of the '
            f'{base_channels} of the first convolution, starting with 1'
        )
    return dict(
        base_channels=base_channels,
        channel_mults=tuple(width // base_channels for width in widths),
        codebook_size=codebook_size,
        embed_dims=embed_dims,
        in_channels=in_channels,
        num_res_blocks=count(converted, r'encoder\.levels\.0\.(\d+)'),
        num_mid_blocks=count(converted, r'encoder\.mid\.(\d+)'),
        decoder_res_blocks=count(converted, r'decoder\.levels\.0\.(\d+)'),
        shortcut_from=_shortcut_from(converted),
        conv_bias='encoder.conv_in.bias' in converted,
        downsample='conv' if 'encoder.downsamples.0.weight' in converted else 'avg',
        attn_levels=tuple(
            level for level in range(len(widths)) if f'encoder.levels.{level}.0.attn.q.weight' in converted
        ),
        mid_attn='encoder.mid.0.attn.q.weight' in converted,
        encoder_out_kernel=encoder_out_kernel,
        quant_conv=quant_conv,
        z_channels=z_channels if quant_conv else None,
        input_range=tuple(float(value) for value in input_range),
        num_groups=num_groups,
    )


def _shortcut_from(converted: Mapping[str, Tensor]) -> str:
    """Source of the shortcut in blocks that change the width: 'input' or 'output'."""
    for key, value in converted.items():
        if re.fullmatch(r'encoder\..*\.shortcut\.weight', key):
            block_input = converted[key.replace('shortcut', 'conv1')].shape[1]
            return 'input' if value.shape[1] == block_input else 'output'
    return 'output'


def _is_vqgan(state_dict: Mapping[str, Tensor]) -> bool:
    return {'encoder.conv_in.weight', 'decoder.conv_in.weight', 'quantize.embedding.weight'} <= set(state_dict)


#: MaskGIT's VQGAN as released with MAGE and ADDP.
MASKGIT = Layout(
    name='MaskGIT VQGAN',
    component='tokenizer',
    matches=lambda state_dict: _is_vqgan(state_dict) and 'encoder.conv_in.bias' not in state_dict,
    convert=convert_maskgit,
    build_args=lambda state_dict: tokenizer_args(convert_maskgit(state_dict)),
)

#: VQGANs trained with taming-transformers.
TAMING = Layout(
    name='taming VQGAN',
    component='tokenizer',
    matches=lambda state_dict: _is_vqgan(state_dict) and 'encoder.conv_in.bias' in state_dict,
    convert=convert_taming,
    build_args=lambda state_dict: tokenizer_args(convert_taming(state_dict), (-1.0, 1.0)),
)
