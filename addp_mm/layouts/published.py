# Copyright (c) addp_mm contributors. Apache-2.0.
"""Published ADDP checkpoints (https://github.com/ChangyaoTian/ADDP): whole model or encoder.

These names occur in this module only. ``tools/model_converters/published_addp.py`` and
:func:`~addp_mm.apis.load_published` call it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, count, prefixed, require, translate, without_prefix
from addp_mm.layouts.layout import Layout, refuses_other_shapes
from addp_mm.layouts.mage import HEAD_RULES, PREDICTOR_RULES, PREDICTOR_UNUSED, heads_of, predictor_args, trim_positions
from addp_mm.layouts.timm_vit import PLAIN
from addp_mm.layouts.vit_weights import vit_args, vit_layout
from addp_mm.layouts.vqgan import tokenizer_args, vqgan_rules

#: Patterns for whole keys that the published model saves but does not use.
_UNUSED = (
    r'decoder_pos_embed',
    r'pos_token_embed',
    r'pos_mask_embed',
    rf'decoder_pred\.{WB}',
    *(r'token_predictor\.' + pattern for pattern in PREDICTOR_UNUSED),
)


def _without_class_row(table: Tensor) -> Tensor:
    """(1, 1 + L, C) -> (1, L, C). The row of the class position is never used."""
    return table[:, 1:]


_ENCODER_RULES: tuple[Rule, ...] = (*PLAIN, (rf'tokenizer_norm\.{WB}', r'pre_norm.\1'))

_DECODER_RULES: tuple[Rule, ...] = (
    (rf'decoder_embed\.{WB}', r'neck.embed.\1'),
    (r'token_emb\.weight', 'neck.word_embed.weight'),
    (r'mask_token', 'neck.mask_token'),
    (r'decoder_pos_embed_learned', 'neck.pos_embed'),
    (r'decoder_pos_mask_embed', 'neck.mask_pos_embed', _without_class_row),
    (r'decoder_pos_token_embed', 'neck.token_pos_embed', _without_class_row),
    (rf'decoder_blocks\.{VIT_BLOCK}', r'neck.blocks.\1'),
    (rf'decoder_norm\.{WB}', r'neck.norm.\1'),
    *HEAD_RULES,
)

_NEEDED = (
    'backbone.cls_token',
    'backbone.pos_embed',
    'backbone.patch_embed.projection.weight',
    'backbone.blocks.0.mlp.fc1.weight',
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


@refuses_other_shapes
def convert_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published state dict to that of :class:`~addp_mm.models.selfsup.ADDP`.

    Args:
        state_dict: Published layout. The tokenizer is under ``vqgan.*``, under
            ``token_predictor.vqgan.*``, or under both. It is not changed.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: A key is unknown, the two copies of the tokenizer differ, or a component is
            missing or incomplete.
    """
    source = _with_one_tokenizer(state_dict)
    rules = (*prefixed(_ENCODER_RULES, '', 'backbone.'), *_DECODER_RULES, *_frozen_rules(source))
    converted = translate(source, rules, _UNUSED, 'ADDP')
    missing = sorted({name.split('.')[0] for name in _NEEDED if name not in converted})
    if missing:
        raise ValueError(f'not a whole published ADDP checkpoint: {", ".join(missing)} missing or incomplete')
    predictor = trim_positions(without_prefix(converted, 'predictor.'))
    return {**converted, 'predictor.pos_embed': predictor['pos_embed']}


def _frozen_rules(keys: Iterable[str]) -> tuple[Rule, ...]:
    """Rules for predictor and tokenizer of a state dict with these keys."""
    tokenizer = without_prefix(dict.fromkeys(keys), 'vqgan.')
    return (
        *prefixed(PREDICTOR_RULES, 'token_predictor.', 'predictor.'),
        *prefixed(vqgan_rules(list(tokenizer)), 'vqgan.', 'tokenizer.'),
    )


def _with_one_tokenizer(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the tokenizer under ``vqgan.`` only."""
    repeated = 'token_predictor.vqgan.'
    source = {key: value for key, value in state_dict.items() if not key.startswith(repeated)}
    for key, value in without_prefix(state_dict, repeated).items():
        first = source.setdefault(f'vqgan.{key}', value)
        if first.shape != value.shape or not torch.equal(first, value):
            raise ValueError(f'{repeated}{key} differs from vqgan.{key}: the checkpoint has two different tokenizers')
    return source


def _encoder_part(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys of the encoder and the unknown keys of an encoder, a whole ADDP or a classifier."""
    source = _with_one_tokenizer(state_dict)
    others = (*_UNUSED, *(rule[0] for rule in (*_DECODER_RULES, *_frozen_rules(source))), rf'head\.{WB}')
    encoder = {key: value for key, value in source.items() if not any(re.fullmatch(other, key) for other in others)}
    require(encoder, ('cls_token', 'pos_embed'), 'a whole ADDP encoder')
    if {'norm.weight', 'fc_norm.weight'} <= set(encoder):
        raise ValueError('the checkpoint has two final norms, norm and fc_norm. ADDPViT has only one')
    return encoder


@refuses_other_shapes
def published_args(converted: Mapping[str, Tensor]) -> dict:
    """Infer the arguments of :class:`~addp_mm.models.selfsup.ADDP` from its weights.

    Args:
        converted: Result of :func:`convert_published`.

    Returns:
        Configs of the components. Those of backbone, neck and predictor lack their numbers of
        attention heads.

    Raises:
        ValueError: The tokens do not form a square map, or a component cannot have these sizes.
    """
    tokenizer = tokenizer_args(without_prefix(converted, 'tokenizer.'))
    predictor = predictor_args(without_prefix(converted, 'predictor.'), tokenizer['codebook_size'])
    backbone = vit_args(without_prefix(converted, 'backbone.'))
    width, in_dims = converted['neck.embed.weight'].shape
    token_space = predictor['token_space']
    return dict(
        tokenizer=dict(type='addp_mm.VQTokenizer', **tokenizer),
        predictor=dict(type='addp_mm.MaskedTokenPredictor', **predictor),
        backbone=dict(type='addp_mm.ADDPViT', out_type='raw', drop_rate=0.1, attn_drop_rate=0.1, **backbone),
        neck=dict(
            type='addp_mm.TokenDecoder',
            num_tokens=converted['neck.mask_pos_embed'].shape[1],
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


@refuses_other_shapes
def published_settings(
    converted: Mapping[str, Tensor],
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    predictor_num_heads: int | None = None,
    predictor_decoder_num_heads: int | None = None,
) -> dict:
    """:func:`published_args` with the numbers of attention heads.

    Args:
        converted: Result of :func:`convert_published`.
        num_heads: Attention heads of the encoder. Defaults to the published number for its width.
        decoder_num_heads: Attention heads of the token decoder. Defaults to the published number.
        predictor_num_heads: Attention heads of the predictor's encoder. Defaults to the published
            number.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Defaults to
            ``decoder_num_heads``, else to the published number.

    Raises:
        ValueError: The tokens do not form a square map, a component cannot have these sizes, or no
            published model has its width and its number of heads is not given.
    """
    settings = published_args(converted)
    backbone, neck, predictor = (settings[name] for name in ('backbone', 'neck', 'predictor'))
    backbone['arch']['num_heads'] = heads_of(backbone['arch']['embed_dims'], num_heads, 'num_heads')
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


#: The whole pre-training model.
PUBLISHED = Layout(
    name='ADDP',
    component='model',
    matches=_is_whole,
    convert=convert_published,
    build_args=lambda state_dict: published_args(convert_published(state_dict)),
)

#: The encoder. Its ``convert`` also takes whole models and classifiers. ``find_layout`` recognises
#: a classifier as a 'timm ViT', because the keys are the same; the result is the same too.
PUBLISHED_ENCODER = vit_layout(
    'ADDP encoder',
    lambda state_dict: 'tokenizer_norm.weight' in state_dict and not _is_whole(state_dict),
    _ENCODER_RULES,
    prepare=_encoder_part,
    class_position=True,
)
