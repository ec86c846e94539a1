# Copyright (c) addp_mm contributors. Apache-2.0.
"""MAGE's token predictor, run straight from a state dict in the published layout.

Written from the published facts, without the package: what a converted predictor is held against.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, DECODER_WIDTH, LENGTH, CODES = 24, 16, 9, 12
VOCABULARY = CODES + 1000 + 1
FAKE_CLASS, MASK = CODES + 76, CODES + 1000
HEADS, DECODER_HEADS = 3, 2


def random_state_dict() -> dict[str, Tensor]:
    """Random weights under the published names, with all that is stored and never used."""
    state = {
        'cls_token': torch.randn(1, 1, WIDTH), 'mask_token': torch.randn(1, 1, DECODER_WIDTH),
        'pos_embed': torch.randn(1, 1 + LENGTH, WIDTH), 'decoder_pos_embed': torch.randn(1, 1 + LENGTH, DECODER_WIDTH),
        'decoder_pos_embed_learned': torch.randn(1, 1 + LENGTH, DECODER_WIDTH),
        'patch_embed.proj.weight': torch.randn(WIDTH, 3, 4, 4), 'patch_embed.proj.bias': torch.randn(WIDTH),
        'token_emb.word_embeddings.weight': torch.randn(VOCABULARY, WIDTH),
        'token_emb.position_embeddings.weight': torch.randn(257, WIDTH),
        'token_emb.position_ids': torch.arange(257)[None], 'mlm_layer.bias': torch.randn(1, 1, VOCABULARY),
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


def probabilities(state: dict[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """Probabilities of the codes, (B, L, CODES), for ids (B, L) of which some are masked and none is dropped."""

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state[f'{name}.bias']

    def norm(name, x, eps=1e-6):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + eps).sqrt() * state[f'{name}.weight'] + state[f'{name}.bias']

    def attention(name, x, heads):
        query, key, value = linear(f'{name}.qkv', x).chunk(3, dim=-1)
        out = []
        for part in range(heads):
            at = slice(part * x.shape[2] // heads, (part + 1) * x.shape[2] // heads)
            scores = query[..., at] @ key[..., at].transpose(1, 2) / (x.shape[2] / heads)**0.5
            out.append(scores.softmax(-1) @ value[..., at])
        return linear(f'{name}.proj', torch.cat(out, dim=-1))

    def block(name, x, heads):
        x = x + attention(f'{name}.attn', norm(f'{name}.norm1', x), heads)
        return x + linear(f'{name}.mlp.fc2', F.gelu(linear(f'{name}.mlp.fc1', norm(f'{name}.norm2', x))))

    words = state['token_emb.word_embeddings.weight']
    sequence = torch.cat([torch.full((len(ids), 1), FAKE_CLASS), torch.where(mask, MASK, ids)], dim=1)
    x = words[sequence] + state['token_emb.position_embeddings.weight'][:sequence.shape[1]]
    x = norm('token_emb.LayerNorm', x)
    for index in range(2):
        x = block(f'blocks.{index}', x, HEADS)
    x = linear('decoder_embed', norm('norm', x))
    masked = torch.cat([torch.zeros(len(ids), 1, dtype=torch.bool), mask], dim=1)[..., None]
    x = torch.where(masked, x[:, :1], x) + state['decoder_pos_embed_learned']
    x = norm('decoder_norm', block('decoder_blocks.0', x, DECODER_HEADS))
    hidden = norm('mlm_layer.ln', F.gelu(linear('mlm_layer.fc', x)), eps=1e-5)
    logits = hidden @ words.T + state['mlm_layer.bias']
    return logits[:, 1:, :CODES].softmax(-1)
