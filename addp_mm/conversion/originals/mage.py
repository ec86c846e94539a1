# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published forward pass of MAGE's predictor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from addp_mm.conversion.originals.layers import OriginalLayers

#: MAGE's ids are the codes, 1000 class slots, and the mask id. Slot 76 is the class of all images.
CLASS_SLOTS, FAKE_CLASS_SLOT = 1000, 76


def predicted_probabilities(
    state_dict: Mapping[str, Tensor],
    ids: Tensor,
    mask: Tensor,
    num_heads: int,
    decoder_num_heads: int,
    prefix: str = '',
) -> Tensor:
    """Probabilities of the codes at every position (arXiv 2211.09117).

    Args:
        state_dict: Weights in MAGE's layout.
        ids: Token ids, (B, L).
        mask: (B, L), True where masked.
        num_heads: Attention heads of the encoder.
        decoder_num_heads: Attention heads of the decoder.
        prefix: Prefix of the weights' names. Defaults to ''.

    Returns:
        (B, L, number of codes).
    """
    layers = OriginalLayers(state_dict, prefix)
    words = layers['token_emb.word_embeddings.weight']
    num_codes = len(words) - CLASS_SLOTS - 1
    tokens = torch.where(mask, num_codes + CLASS_SLOTS, ids)
    tokens = torch.cat([torch.full_like(tokens[:, :1], num_codes + FAKE_CLASS_SLOT), tokens], dim=1)
    x = words[tokens] + layers['token_emb.position_embeddings.weight'][: tokens.shape[1]]
    x = layers.blocks('blocks', layers.layer_norm('token_emb.LayerNorm', x), num_heads)
    x = layers.linear('decoder_embed', layers.layer_norm('norm', x))
    class_output = x[:, :1]
    x = torch.cat([class_output, torch.where(mask[..., None], class_output, x[:, 1:])], dim=1)
    x = layers.blocks('decoder_blocks', x + layers['decoder_pos_embed_learned'], decoder_num_heads)
    logits = layers.words('mlm_layer', layers.layer_norm('decoder_norm', x), words)
    return logits[:, 1:, :num_codes].softmax(-1)
