# Copyright (c) addp_mm contributors. Apache-2.0.
"""Published ADDP checkpoints (https://github.com/ChangyaoTian/ADDP): everything, or the encoder alone.

Nothing else in the package knows these names. ``tools/model_converters/published_addp.py`` and
:func:`~addp_mm.apis.load_published` call this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, count, prefixed, require, translate, without_prefix
from addp_mm.layouts.layout import Layout
from addp_mm.layouts.mage import PREDICTOR_RULES, PREDICTOR_UNUSED, heads_of, predictor_args, trim_positions
from addp_mm.layouts.vqgan import tokenizer_args, vqgan_rules

_PREDICTOR = r'token_predictor\.'
#: Stored and never used by the published model (a pattern has to match the whole key).
NEVER_USED = (
    r'decoder_pos_embed',
    r'pos_token_embed',
    r'pos_mask_embed',
    rf'decoder_pred\.{WB}',
    *(_PREDICTOR + pattern for pattern in PREDICTOR_UNUSED),
)


def _without_class_row(table: Tensor) -> Tensor:
    """(1, 1 + L, C) -> (1, L, C): the row of the class position is stored and never used."""
    return table[:, 1:]


_ENCODER_RULES: tuple[Rule, ...] = (
    (r'cls_token', 'cls_token'),
    (r'pos_embed', 'pos_embed'),
    (rf'patch_embed\.proj\.{WB}', r'patch_embed.projection.\1'),
    (rf'tokenizer_norm\.{WB}', r'pre_norm.\1'),
    (rf'blocks\.{VIT_BLOCK}', r'blocks.\1'),
    (rf'norm\.{WB}', r'final_norm.\1'),
)

_DECODER_RULES: tuple[Rule, ...] = (
    (rf'decoder_embed\.{WB}', r'neck.embed.\1'),
    (r'token_emb\.weight', 'neck.word_embed.weight'),
    (r'mask_token', 'neck.mask_token'),
    (r'decoder_pos_embed_learned', 'neck.pos_embed'),
    (r'decoder_pos_mask_embed', 'neck.mask_pos_embed', _without_class_row),
    (r'decoder_pos_token_embed', 'neck.token_pos_embed', _without_class_row),
    (rf'decoder_blocks\.{VIT_BLOCK}', r'neck.blocks.\1'),
    (rf'decoder_norm\.{WB}', r'neck.norm.\1'),
    (rf'mlm_layer\.fc\.{WB}', r'head.fc.\1'),
    (rf'mlm_layer\.ln\.{WB}', r'head.norm.\1'),
    (r'mlm_layer\.bias', 'head.bias', torch.flatten),
)

_NEEDED_IN_ENCODER = ('cls_token', 'pos_embed', 'patch_embed.projection.weight', 'blocks.0.mlp.fc1.weight')
_NEEDED = (
    *(f'backbone.{name}' for name in _NEEDED_IN_ENCODER),
    'neck.embed.weight',
    'neck.blocks.0.mlp.fc1.weight',
    'neck.word_embed.weight',
    'neck.mask_pos_embed',
    'predictor.word_embed.weight',
    'predictor.pos_embed',
    'predictor.decoder_embed.weight',
    'predictor.decoder_pos_embed',
    'predictor.blocks.0.mlp.fc1.weight',
    'tokenizer.codes.weight',
    'tokenizer.encoder.conv_in.weight',
    'tokenizer.encoder.conv_out.weight',
    'tokenizer.decoder.conv_out.weight',
)


def convert_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published state dict into that of :class:`~addp_mm.models.selfsup.ADDP`.

    Args:
        state_dict: Published layout; the tokenizer as ``vqgan.*``, repeated under
            ``token_predictor.vqgan.*`` or only there. Left as it is.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: If a key is neither used nor among :data:`NEVER_USED`, if the two copies of the
            tokenizer differ, or if there is no ADDP encoder, predictor or tokenizer in it.
    """
    source = _with_one_tokenizer(state_dict)
    rules = (*prefixed(_ENCODER_RULES, '', 'backbone.'), *_DECODER_RULES, *_frozen_rules(source))
    converted = translate(source, rules, NEVER_USED, 'ADDP')
    missing = sorted({name.split('.')[0] for name in _NEEDED if name not in converted})
    if missing:
        raise ValueError(f'not a whole published ADDP checkpoint: {", ".join(missing)} missing or incomplete')
    predictor = trim_positions(without_prefix(converted, 'predictor.'))
    return {**converted, 'predictor.pos_embed': predictor['pos_embed']}


def convert_published_encoder(
    state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """Translate the encoder of a published state dict into that of :class:`~addp_mm.models.backbones.ADDPViT`.

    Args:
        state_dict: The encoder alone, a whole ADDP, or a fine-tuned classifier. What belongs to the
            token decoder, the predictor, the tokenizer or the classifier's ``head`` is left out by
            name. The norm of a classifier's mean (``fc_norm``) becomes the final norm.
        grid: As the other layouts of ViTs have it. Not needed: the positions always hold the class
            token's.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: If a key belongs to no part of ADDP, or the encoder is incomplete.
    """
    source = _with_one_tokenizer(state_dict)
    left_out = (*NEVER_USED, *(rule[0] for rule in (*_DECODER_RULES, *_frozen_rules(source))), rf'head\.{WB}')
    if {'norm.weight', 'fc_norm.weight'} <= set(source):
        raise ValueError('the checkpoint has two final norms, norm and fc_norm: of ADDP it can have one')
    rules = (*_ENCODER_RULES, (rf'fc_norm\.{WB}', r'final_norm.\1'))
    converted = translate(source, rules, left_out, 'ADDP')
    require(converted, _NEEDED_IN_ENCODER, 'a whole ADDP encoder')
    return converted


def _frozen_rules(keys: Iterable[str]) -> tuple[Rule, ...]:
    """Rules for predictor and tokenizer of a state dict with these keys."""
    tokenizer = without_prefix(dict.fromkeys(keys), 'vqgan.')
    return (
        *prefixed(PREDICTOR_RULES, 'token_predictor.', 'predictor.'),
        *prefixed(vqgan_rules(tokenizer), 'vqgan.', 'tokenizer.'),
    )


def _with_one_tokenizer(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the tokenizer under ``vqgan.`` alone."""
    repeated = 'token_predictor.vqgan.'
    source = {key: value for key, value in state_dict.items() if not key.startswith(repeated)}
    for key, value in without_prefix(state_dict, repeated).items():
        first = source.setdefault(f'vqgan.{key}', value)
        if first.shape != value.shape or not torch.equal(first, value):
            raise ValueError(f'{repeated}{key} differs from vqgan.{key}: the checkpoint holds two different tokenizers')
    return source


def encoder_args(converted: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict:
    """Arguments of :class:`~addp_mm.models.backbones.ADDPViT` that a converted encoder tells.

    Args:
        converted: What :func:`convert_published_encoder` returns.
        grid: (height, width) of the positions in patches; needed only where they form no square
            map.

    Returns:
        ``arch`` lacks ``num_heads``, which tensors do not tell.

    Raises:
        ValueError: If the positions form no square map, or not that of ``grid``.
    """
    embed_dims, in_channels, patch_size = converted['patch_embed.projection.weight'].shape[:3]
    return dict(
        arch=dict(
            embed_dims=embed_dims,
            num_layers=count(converted, r'blocks\.(\d+)'),
            mlp_ratio=len(converted['blocks.0.mlp.fc1.weight']) / embed_dims,
        ),
        img_size=_image_size(converted['pos_embed'].shape[1] - 1, grid, patch_size),
        patch_size=patch_size,
        in_channels=in_channels,
        pre_norm='pre_norm.weight' in converted,
        final_norm='final_norm.weight' in converted,
    )


def _side(num_tokens: int) -> int:
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(f'{num_tokens} tokens form no square map')
    return side


def _image_size(num_tokens: int, grid: tuple[int, int] | None, patch_size: int) -> int | tuple[int, int]:
    if grid is None:
        return _side(num_tokens) * patch_size
    if math.prod(grid) != num_tokens:
        raise ValueError(f'{num_tokens} tokens are not those of {grid[0]} x {grid[1]} patches')
    return grid[0] * patch_size, grid[1] * patch_size


def _encoder_build_args(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict:
    classifier = dict(out_type='avg_featmap') if 'fc_norm.weight' in state_dict else {}
    return {**encoder_args(convert_published_encoder(state_dict), grid), **classifier}


def published_args(converted: Mapping[str, Tensor]) -> dict:
    """Arguments of :class:`~addp_mm.models.selfsup.ADDP` that a converted state dict tells.

    Args:
        converted: What :func:`convert_published` returns.

    Returns:
        Configs of the stations; those of backbone, neck and predictor lack their numbers of heads.

    Raises:
        ValueError: If the tokens form no square map, or a part cannot be built.
    """
    tokenizer = tokenizer_args(without_prefix(converted, 'tokenizer.'))
    predictor = predictor_args(without_prefix(converted, 'predictor.'), tokenizer['codebook_size'])
    backbone = encoder_args(without_prefix(converted, 'backbone.'))
    num_tokens = converted['neck.mask_pos_embed'].shape[1]
    _side(num_tokens)
    width, in_dims = converted['neck.embed.weight'].shape
    token_space = predictor['token_space']
    return dict(
        tokenizer=dict(type='addp_mm.VQTokenizer', **tokenizer),
        predictor=dict(type='addp_mm.MaskedTokenPredictor', **predictor),
        backbone=dict(type='addp_mm.ADDPViT', out_type='raw', drop_rate=0.1, attn_drop_rate=0.1, **backbone),
        neck=dict(
            type='addp_mm.TokenDecoder',
            num_tokens=num_tokens,
            in_dims=in_dims,
            embed_dims=width,
            num_layers=count(converted, r'neck\.blocks\.(\d+)'),
            mlp_ratio=len(converted['neck.blocks.0.mlp.fc1.weight']) / width,
            token_space=dict(token_space),
        ),
        head=dict(
            type='addp_mm.TokenHead',
            in_dims=width,
            token_space=dict(token_space),
            loss=dict(type='addp_mm.SoftTargetCrossEntropy', label_smoothing=0.1),
        ),
        data_preprocessor=dict(
            type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True
        ),
    )


def published_settings(
    converted: Mapping[str, Tensor],
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    predictor_num_heads: int | None = None,
    predictor_decoder_num_heads: int | None = None,
) -> dict:
    """:func:`published_args` with the numbers of heads.

    A number that is not given is that of the published model of the same width, see
    :func:`~addp_mm.layouts.mage.heads_of`.

    Args:
        converted: What :func:`convert_published` returns.
        num_heads: Attention heads of the encoder. Defaults to None.
        decoder_num_heads: Attention heads of the token decoder. Defaults to None.
        predictor_num_heads: Attention heads of the predictor's encoder. Defaults to None.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Defaults to None:
            ``decoder_num_heads`` if that is given.

    Raises:
        ValueError: The tokens do not form a square map, a component cannot be built, or a number of
            heads is not given and no published model has this width.
    """
    settings = published_args(converted)
    arch, neck, predictor = settings['backbone']['arch'], settings['neck'], settings['predictor']
    arch['num_heads'] = heads_of(arch['embed_dims'], num_heads, 'num_heads')
    neck['num_heads'] = heads_of(neck['embed_dims'], decoder_num_heads, 'decoder_num_heads', decoder=True)
    predictor['num_heads'] = heads_of(predictor['embed_dims'], predictor_num_heads, 'predictor_num_heads')
    predictor['decoder_num_heads'] = heads_of(
        predictor['decoder_embed_dims'],
        predictor_decoder_num_heads or decoder_num_heads,
        'predictor_decoder_num_heads',
        decoder=True,
    )
    return settings


def _is_whole(state_dict: Mapping[str, Tensor]) -> bool:
    starts = {key.split('.')[0] for key in state_dict}
    return {'tokenizer_norm', 'decoder_embed', 'token_predictor'} <= starts


#: Everything that pre-training holds.
PUBLISHED = Layout(
    name='ADDP',
    target='ADDP',
    matches=_is_whole,
    convert=convert_published,
    build_args=lambda state_dict: published_args(convert_published(state_dict)),
)

#: The encoder without the frozen parts. It takes whole files and classifiers as well; told by its
# keys alone, a
#: classifier is a plain ViT like MAE's, and is converted to the same.
PUBLISHED_ENCODER = Layout(
    name='ADDP encoder',
    target='ADDPViT',
    matches=lambda state_dict: 'tokenizer_norm.weight' in state_dict and not _is_whole(state_dict),
    convert=convert_published_encoder,
    build_args=_encoder_build_args,
)
