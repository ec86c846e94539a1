# Copyright (c) addp_mm contributors. Apache-2.0.
"""A small token predictor with random weights in MAGE's layout."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH, DECODER_WIDTH, LENGTH, CODES = 24, 16, 9, 12
VOCABULARY = CODES + 1000 + 1
HEADS, DECODER_HEADS = 3, 2


def random_state_dict() -> dict[str, Tensor]:
    """Random weights under the published names, with the tensors that are never used."""
    state = {
        'cls_token': torch.randn(1, 1, WIDTH),
        'mask_token': torch.randn(1, 1, DECODER_WIDTH),
        'pos_embed': torch.randn(1, 1 + LENGTH, WIDTH),
        'decoder_pos_embed': torch.randn(1, 1 + LENGTH, DECODER_WIDTH),
        'decoder_pos_embed_learned': torch.randn(1, 1 + LENGTH, DECODER_WIDTH),
        'patch_embed.proj.weight': torch.randn(WIDTH, 3, 4, 4),
        'patch_embed.proj.bias': torch.randn(WIDTH),
        'token_emb.word_embeddings.weight': torch.randn(VOCABULARY, WIDTH),
        'token_emb.position_embeddings.weight': torch.randn(257, WIDTH),
        'token_emb.position_ids': torch.arange(257)[None],
        'mlm_layer.bias': torch.randn(1, 1, VOCABULARY),
    }

    def linear(name, inputs, outputs):
        state[f'{name}.weight'] = torch.randn(outputs, inputs) / inputs**0.5
        state[f'{name}.bias'] = 0.2 * torch.randn(outputs)

    def norm(name, width):
        state[f'{name}.weight'], state[f'{name}.bias'] = 1 + 0.2 * torch.randn(width), 0.2 * torch.randn(width)

    for stack, width, depth in (('blocks', WIDTH, 2), ('decoder_blocks', DECODER_WIDTH, 1)):
        for block in (f'{stack}.{index}' for index in range(depth)):
            norm(f'{block}.norm1', width)
            linear(f'{block}.attn.qkv', width, 3 * width)
            linear(f'{block}.attn.proj', width, width)
            norm(f'{block}.norm2', width)
            linear(f'{block}.mlp.fc1', width, 4 * width)
            linear(f'{block}.mlp.fc2', 4 * width, width)
    norm('token_emb.LayerNorm', WIDTH)
    norm('norm', WIDTH)
    norm('decoder_norm', DECODER_WIDTH)
    linear('decoder_embed', WIDTH, DECODER_WIDTH)
    linear('decoder_pred', DECODER_WIDTH, 48)
    linear('mlm_layer.fc', DECODER_WIDTH, WIDTH)
    norm('mlm_layer.ln', WIDTH)
    return state
