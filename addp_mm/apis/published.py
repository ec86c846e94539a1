# Copyright (c) addp_mm contributors. Apache-2.0.
"""The key layout of the published ADDP checkpoints, and its translation.

Nothing else in the package knows these names. ``tools/model_converters/published_addp.py`` and
:func:`~addp_mm.apis.load_published` call this module.
"""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]

#: Stored and never used by the published model (a pattern has to match the whole key).
NEVER_USED = (
    # in the encoder and decoder
    r'decoder_pos_embed', r'pos_token_embed', r'pos_mask_embed', r'decoder_pred\.(weight|bias)',
    # in the predictor
    r'token_predictor\.(cls_token|mask_token|pos_embed|decoder_pos_embed)',
    r'token_predictor\.(patch_embed\.proj|decoder_pred)\.(weight|bias)',
    # counts from 0 upwards
    r'token_predictor\.token_emb\.position_ids',
)

#: The class id that stands at position 0 of every sequence (1100) is the 77th class slot.
FAKE_CLASS_SLOT = 76


def _without_class_row(table: Tensor) -> Tensor:
    """(1, 1 + L, C) -> (1, L, C): the row of the class position is stored and never used."""
    return table[:, 1:]


_BLOCK = r'(\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))'
_WB = r'(weight|bias)'

_TRAINED: tuple[_Rule, ...] = (
    (r'cls_token', 'backbone.cls_token'),
    (r'pos_embed', 'backbone.pos_embed'),
    (rf'patch_embed\.proj\.{_WB}', r'backbone.patch_embed.projection.\1'),
    (rf'tokenizer_norm\.{_WB}', r'backbone.pre_norm.\1'),
    (rf'blocks\.{_BLOCK}', r'backbone.blocks.\1'),
    (rf'norm\.{_WB}', r'backbone.final_norm.\1'),
    (rf'decoder_embed\.{_WB}', r'neck.embed.\1'),
    (r'token_emb\.weight', 'neck.word_embed.weight'),
    (r'mask_token', 'neck.mask_token'),
    (r'decoder_pos_embed_learned', 'neck.pos_embed'),
    (r'decoder_pos_mask_embed', 'neck.mask_pos_embed', _without_class_row),
    (r'decoder_pos_token_embed', 'neck.token_pos_embed', _without_class_row),
    (rf'decoder_blocks\.{_BLOCK}', r'neck.blocks.\1'),
    (rf'decoder_norm\.{_WB}', r'neck.norm.\1'),
    (rf'mlm_layer\.fc\.{_WB}', r'head.fc.\1'),
    (rf'mlm_layer\.ln\.{_WB}', r'head.norm.\1'),
    (r'mlm_layer\.bias', 'head.bias', torch.flatten),
)

_PREDICTOR: tuple[_Rule, ...] = (
    (r'token_emb\.word_embeddings\.weight', 'predictor.word_embed.weight'),
    (r'token_emb\.position_embeddings\.weight', 'predictor.pos_embed', lambda table: table[None]),
    (rf'token_emb\.LayerNorm\.{_WB}', r'predictor.embed_norm.\1'),
    (rf'blocks\.{_BLOCK}', r'predictor.blocks.\1'),
    (rf'norm\.{_WB}', r'predictor.norm.\1'),
    (rf'decoder_embed\.{_WB}', r'predictor.decoder_embed.\1'),
    (r'decoder_pos_embed_learned', 'predictor.decoder_pos_embed'),
    (rf'decoder_blocks\.{_BLOCK}', r'predictor.decoder_blocks.\1'),
    (rf'decoder_norm\.{_WB}', r'predictor.decoder_norm.\1'),
    (rf'mlm_layer\.fc\.{_WB}', r'predictor.head.fc.\1'),
    (rf'mlm_layer\.ln\.{_WB}', r'predictor.head.norm.\1'),
    (r'mlm_layer\.bias', 'predictor.head.bias', torch.flatten),
)

_RESIDUAL = r'(norm1\.weight|norm1\.bias|conv1\.weight|norm2\.weight|norm2\.bias|conv2\.weight)'
_TOKENIZER: tuple[_Rule, ...] = (
    (r'encoder\.conv_in\.weight', 'tokenizer.encoder.conv_in.weight'),
    (rf'encoder\.down\.(\d+)\.block\.(\d+)\.{_RESIDUAL}', r'tokenizer.encoder.levels.\1.\2.\3'),
    (r'encoder\.down\.(\d+)\.block\.(\d+)\.nin_shortcut\.weight', r'tokenizer.encoder.levels.\1.\2.shortcut.weight'),
    (rf'decoder\.conv_in\.{_WB}', r'tokenizer.decoder.conv_in.\1'),
    (rf'decoder\.up\.(\d+)\.block\.(\d+)\.{_RESIDUAL}', r'tokenizer.decoder.levels.~\1.\2.\3'),
    (r'decoder\.up\.(\d+)\.block\.(\d+)\.nin_shortcut\.weight', r'tokenizer.decoder.levels.~\1.\2.shortcut.weight'),
    (rf'decoder\.up\.(\d+)\.upsample\.conv\.{_WB}', r'tokenizer.decoder.upsamples.~\1.\2'),
    (rf'(encoder|decoder)\.mid\.block_(\d+)\.{_RESIDUAL}', r'tokenizer.\1.mid.-\2.\3'),
    (rf'(encoder|decoder)\.(norm_out|conv_out)\.{_WB}', r'tokenizer.\1.\2.\3'),
    (r'quantize\.embedding\.weight', 'tokenizer.codes.weight'),
)


def convert_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published state dict into that of :class:`~addp_mm.models.selfsup.ADDP`.

    Args:
        state_dict: Published layout; the tokenizer as ``vqgan.*``, repeated under ``token_predictor.vqgan.*`` or only
            there. Left as it is.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: If a key is neither used nor among :data:`NEVER_USED`, if the two copies of the tokenizer differ,
            or if there is no ADDP encoder, predictor or tokenizer in it.
    """
    source = _with_one_tokenizer(state_dict)
    num_levels = 1 + max((int(key.split('.')[3]) for key in source if key.startswith('vqgan.decoder.up.')), default=0)
    converted, unknown = {}, []
    for key, value in source.items():
        if any(re.fullmatch(pattern, key) for pattern in NEVER_USED):
            continue
        found = _apply_rules(key, num_levels)
        if found is None:
            unknown.append(key)
            continue
        name, change = found
        converted[name] = change(value).float().contiguous()
    if unknown:
        raise ValueError(f'{len(unknown)} keys of the checkpoint are neither used nor known as unused: '
                         f'{", ".join(unknown[:20])}{" ..." if len(unknown) > 20 else ""}')
    _require(converted)
    # The published table is made for 256 tokens; fewer tokens never reach its end.
    length = converted['predictor.decoder_pos_embed'].shape[1]
    converted['predictor.pos_embed'] = converted['predictor.pos_embed'][:, :length].contiguous()
    return converted


def published_settings(converted: Mapping[str, Tensor], num_heads: int, decoder_num_heads: int,
                       predictor_num_heads: int, predictor_decoder_num_heads: int) -> dict:
    """Arguments of :class:`~addp_mm.models.selfsup.ADDP` for a converted state dict, sizes read from the tensors.

    Args:
        converted: What :func:`convert_published` returns.
        num_heads: Attention heads of the encoder.
        decoder_num_heads: Attention heads of the token decoder.
        predictor_num_heads: Attention heads of the predictor's encoder.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder.

    Raises:
        ValueError: If the tokens form no square map.
    """
    num_tokens = converted['neck.mask_pos_embed'].shape[1]
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(f'{num_tokens} tokens form no square map')
    projection = converted['backbone.patch_embed.projection.weight']
    embed_dims, in_channels, patch_size = projection.shape[:3]
    codebook_size = len(converted['tokenizer.codes.weight'])
    token_space = dict(codebook_size=codebook_size,
                       num_class_slots=len(converted['neck.word_embed.weight']) - codebook_size - 1,
                       fake_class_slot=FAKE_CLASS_SLOT)
    width = converted['neck.embed.weight'].shape[0]
    predictor_dims = converted['predictor.word_embed.weight'].shape[1]
    predictor_width = converted['predictor.decoder_embed.weight'].shape[0]
    return dict(
        tokenizer=dict(type='addp_mm.VQTokenizer', **_tokenizer_settings(converted)),
        predictor=dict(
            type='addp_mm.MaskedTokenPredictor', num_tokens=num_tokens, embed_dims=predictor_dims,
            num_layers=_count(converted, r'predictor\.blocks\.(\d+)'), num_heads=predictor_num_heads,
            decoder_embed_dims=predictor_width,
            decoder_num_layers=_count(converted, r'predictor\.decoder_blocks\.(\d+)'),
            decoder_num_heads=predictor_decoder_num_heads,
            mlp_ratio=len(converted['predictor.blocks.0.mlp.fc1.weight']) / predictor_dims, token_space=token_space),
        backbone=dict(
            type='addp_mm.ADDPViT', img_size=side * patch_size, patch_size=patch_size, in_channels=in_channels,
            arch=dict(embed_dims=embed_dims, num_layers=_count(converted, r'backbone\.blocks\.(\d+)'),
                      num_heads=num_heads, mlp_ratio=len(converted['backbone.blocks.0.mlp.fc1.weight']) / embed_dims),
            out_type='raw', pre_norm=True, drop_rate=0.1, attn_drop_rate=0.1),
        neck=dict(
            type='addp_mm.TokenDecoder', num_tokens=num_tokens, in_dims=embed_dims, embed_dims=width,
            num_layers=_count(converted, r'neck\.blocks\.(\d+)'), num_heads=decoder_num_heads,
            mlp_ratio=len(converted['neck.blocks.0.mlp.fc1.weight']) / width, token_space=token_space),
        head=dict(
            type='addp_mm.TokenHead', in_dims=width, token_space=token_space,
            loss=dict(type='addp_mm.SoftTargetCrossEntropy', label_smoothing=0.1)),
        data_preprocessor=dict(
            type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True))


def _tokenizer_settings(converted: Mapping[str, Tensor]) -> dict:
    num_levels = _count(converted, r'tokenizer\.encoder\.levels\.(\d+)')
    base_channels, in_channels = converted['tokenizer.encoder.conv_in.weight'].shape[:2]
    widths = [len(converted[f'tokenizer.encoder.levels.{level}.0.conv1.weight']) for level in range(num_levels)]
    codebook_size, embed_dims = converted['tokenizer.codes.weight'].shape
    return dict(
        base_channels=base_channels, channel_mults=tuple(width // base_channels for width in widths),
        codebook_size=codebook_size, embed_dims=embed_dims, in_channels=in_channels,
        num_res_blocks=_count(converted, r'tokenizer\.encoder\.levels\.0\.(\d+)'),
        num_mid_blocks=_count(converted, r'tokenizer\.encoder\.mid\.(\d+)'),
        decoder_res_blocks=_count(converted, r'tokenizer\.decoder\.levels\.0\.(\d+)'))


def _with_one_tokenizer(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the tokenizer under ``vqgan.`` alone."""
    repeated = 'token_predictor.vqgan.'
    source = {key: value for key, value in state_dict.items() if not key.startswith(repeated)}
    for key, value in state_dict.items():
        if key.startswith(repeated):
            first = source.setdefault('vqgan.' + key[len(repeated):], value)
            if first.shape != value.shape or not torch.equal(first, value):
                raise ValueError(f'{key} differs from vqgan.{key[len(repeated):]}: the checkpoint holds two different '
                                 'tokenizers')
    return source


def _apply_rules(key: str, num_levels: int) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    """New name of a key and what happens to its tensor; None for a key without a rule."""
    part, rules = '', _TRAINED
    for prefix, others in (('token_predictor.', _PREDICTOR), ('vqgan.', _TOKENIZER)):
        if key.startswith(prefix):
            part, rules = prefix, others
    for pattern, replacement, *change in rules:
        match = re.fullmatch(pattern, key[len(part):])
        if match:
            name = match.expand(replacement)
            # ~i counts decoder levels from the coarsest, as the data flows; -i counts from 0 instead of 1
            name = re.sub(r'~(\d+)', lambda number: str(num_levels - 1 - int(number[1])), name)
            name = re.sub(r'-(\d+)', lambda number: str(int(number[1]) - 1), name)
            return name, (change[0] if change else lambda value: value)
    return None


def _require(converted: Mapping[str, Tensor]) -> None:
    needed = ('backbone.patch_embed.projection.weight', 'backbone.blocks.0.mlp.fc1.weight', 'neck.embed.weight',
              'neck.blocks.0.mlp.fc1.weight', 'neck.word_embed.weight', 'neck.mask_pos_embed',
              'predictor.word_embed.weight', 'predictor.pos_embed', 'predictor.decoder_embed.weight',
              'predictor.decoder_pos_embed', 'predictor.blocks.0.mlp.fc1.weight', 'tokenizer.codes.weight',
              'tokenizer.encoder.conv_in.weight')
    missing = sorted({name.split('.')[0] for name in needed if name not in converted})
    if missing:
        raise ValueError(f'not a whole published ADDP checkpoint: {", ".join(missing)} missing or incomplete')


def _count(converted: Mapping[str, Tensor], pattern: str) -> int:
    """Number of different indices that a pattern finds at the start of the keys."""
    return len({match[1] for match in map(re.compile(pattern).match, converted) if match})
