# Copyright (c) addp_mm contributors. Apache-2.0.
"""MAGE's pre-training checkpoints (https://github.com/LTH14/mage).

The predictor is converted here. The tokenizer, under ``vqgan.*``, has the layout of
:data:`~addp_mm.layouts.vqgan.MASKGIT`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, count, prefixed, require, translate, without_prefix
from addp_mm.layouts.layout import Layout
from addp_mm.layouts.vqgan import vqgan_rules

#: Class slot of the fake class id (1100) at position 0 of every sequence.
FAKE_CLASS_SLOT = 76
#: Number of ids between the codes and the mask id.
NUM_CLASS_SLOTS = 1000

#: Attention heads of the published encoders and decoders of MAGE and ADDP, by width (ViT-B, ViT-L).
PUBLISHED_HEADS = {768: (12, 16), 1024: (16, 16)}

#: Tensors of MAE, on whose code MAGE's code is based, and position ids. MAGE saves them and does
#: not use them.
PREDICTOR_UNUSED = (
    r'cls_token',
    r'mask_token',
    r'pos_embed',
    r'decoder_pos_embed',
    rf'patch_embed\.proj\.{WB}',
    rf'decoder_pred\.{WB}',
    r'token_emb\.position_ids',
)

#: The head of MAGE and of ADDP.
HEAD_RULES: tuple[Rule, ...] = (
    (rf'mlm_layer\.fc\.{WB}', r'head.fc.\1'),
    (rf'mlm_layer\.ln\.{WB}', r'head.norm.\1'),
    (r'mlm_layer\.bias', 'head.bias', torch.flatten),
)

PREDICTOR_RULES: tuple[Rule, ...] = (
    (r'token_emb\.word_embeddings\.weight', 'word_embed.weight'),
    (r'token_emb\.position_embeddings\.weight', 'pos_embed', lambda table: table[None]),
    (rf'token_emb\.LayerNorm\.{WB}', r'embed_norm.\1'),
    (rf'blocks\.{VIT_BLOCK}', r'blocks.\1'),
    (rf'norm\.{WB}', r'norm.\1'),
    (rf'decoder_embed\.{WB}', r'decoder_embed.\1'),
    (r'decoder_pos_embed_learned', 'decoder_pos_embed'),
    (rf'decoder_blocks\.{VIT_BLOCK}', r'decoder_blocks.\1'),
    (rf'decoder_norm\.{WB}', r'decoder_norm.\1'),
    *HEAD_RULES,
)

_NEEDED = (
    'word_embed.weight',
    'pos_embed',
    'blocks.0.mlp.fc1.weight',
    'decoder_embed.weight',
    'decoder_pos_embed',
    'decoder_blocks.0.mlp.fc1.weight',
)


def convert_mage(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert MAGE's predictor to :class:`~addp_mm.models.predictors.MaskedTokenPredictor`.

    Args:
        state_dict: MAGE's pre-training model, bare. The keys of its tokenizer (``vqgan.*``) are
            checked and left out.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: A key is unknown, or the predictor is incomplete.
    """
    vqgan = prefixed(vqgan_rules(without_prefix(state_dict, 'vqgan.')), 'vqgan.', 'tokenizer.')
    converted = translate(state_dict, (*prefixed(PREDICTOR_RULES, '', 'predictor.'), *vqgan), PREDICTOR_UNUSED, 'MAGE')
    predictor = trim_positions(without_prefix(converted, 'predictor.'))
    require(predictor, _NEEDED, 'a whole MAGE checkpoint')
    return predictor


def trim_positions(predictor: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reduce the published table of 256 positions to the number of tokens, in place."""
    if 'pos_embed' in predictor and 'decoder_pos_embed' in predictor:
        length = predictor['decoder_pos_embed'].shape[1]
        predictor['pos_embed'] = predictor['pos_embed'][:, :length].contiguous()
    return predictor


def predictor_args(converted: Mapping[str, Tensor], codebook_size: int | None = None) -> dict:
    """Infer the arguments of a MaskedTokenPredictor from its weights.

    Args:
        converted: Result of :func:`convert_mage`.
        codebook_size: Number of codes of its tokenizer. Defaults to None: the size of the
            vocabulary without the 1000 class slots and the mask id, as in every published model.

    Returns:
        All arguments except ``num_heads`` and ``decoder_num_heads``, which cannot be inferred.

    Raises:
        ValueError: The vocabulary is too small for the published map of ids.
    """
    vocab_size, embed_dims = converted['word_embed.weight'].shape
    codebook_size = vocab_size - NUM_CLASS_SLOTS - 1 if codebook_size is None else codebook_size
    num_class_slots = vocab_size - codebook_size - 1
    if codebook_size < 1 or num_class_slots <= FAKE_CLASS_SLOT:
        raise ValueError(
            f'a vocabulary of {vocab_size} words is too small for {codebook_size} codes, more than '
            f'{FAKE_CLASS_SLOT} class slots and the mask id'
        )
    return dict(
        num_tokens=converted['decoder_pos_embed'].shape[1] - 1,
        embed_dims=embed_dims,
        num_layers=count(converted, r'blocks\.(\d+)'),
        decoder_embed_dims=converted['decoder_embed.weight'].shape[0],
        decoder_num_layers=count(converted, r'decoder_blocks\.(\d+)'),
        mlp_ratio=len(converted['blocks.0.mlp.fc1.weight']) / embed_dims,
        token_space=dict(codebook_size=codebook_size, num_class_slots=num_class_slots, fake_class_slot=FAKE_CLASS_SLOT),
    )


def heads_of(width: int, given: int | None, option: str, decoder: bool = False) -> int:
    """Number of attention heads of a published transformer, inferred from its width.

    Args:
        width: Width of the transformer.
        given: The number, if it is known; otherwise None.
        option: Name of the option in errors, such as 'num_heads'.
        decoder: Whether it is a decoder. The decoders of MAGE and ADDP have 16 heads in both
            sizes. Defaults to False.

    Raises:
        ValueError: No number is given and no published model has this width, or the width is not
            a multiple of the number.
    """
    heads = given or (PUBLISHED_HEADS.get(width, (None, None))[decoder])
    if heads is None:
        raise ValueError(
            f'the number of attention heads cannot be inferred from the weights, and no published model has the width '
            f'{width}: give {option} (on the command line --{option.replace("_", "-")})'
        )
    if width % heads:
        raise ValueError(f'{option}: the width {width} is not a multiple of {heads} heads')
    return heads


def mage_args(state_dict: Mapping[str, Tensor]) -> dict:
    """Infer the arguments of the predictor in a MAGE checkpoint, with its tokenizer's codes."""
    codes = state_dict.get('vqgan.quantize.embedding.weight')
    return predictor_args(convert_mage(state_dict), None if codes is None else len(codes))


#: MAGE's whole pre-training model, converted to the predictor.
MAGE = Layout(
    name='MAGE',
    component='predictor',
    matches=lambda state_dict: {'token_emb.word_embeddings.weight', 'mlm_layer.bias'} <= set(state_dict),
    convert=convert_mage,
    build_args=mage_args,
)
