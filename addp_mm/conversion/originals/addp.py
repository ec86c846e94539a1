# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published forward pass of ADDP's encoder and token decoder.

Its tokenizer and predictor are MaskGIT's and MAGE's, see
:mod:`addp_mm.conversion.originals.vqgan` and :mod:`addp_mm.conversion.originals.mage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from addp_mm.conversion.agreement import compared
from addp_mm.conversion.originals.layers import OriginalLayers
from addp_mm.conversion.originals.mage import predicted_probabilities
from addp_mm.conversion.originals.vqgan import OriginalVQGAN


def encoder_features(state_dict: Mapping[str, Tensor], images: Tensor, num_heads: int) -> Tensor:
    """Features of ADDP's encoder (arXiv 2306.05423), or of a classifier fine-tuned from it.

    Args:
        state_dict: Weights in the published layout.
        images: (B, in_channels, H, W) of the weights' own size, normalised.
        num_heads: Attention heads.

    Returns:
        All tokens after the final norm, class token first, (B, 1 + L, C). For a classifier, the
        mean of the patch tokens after its norm, (B, C).
    """
    layers = OriginalLayers(state_dict)
    patches = layers.conv('patch_embed.proj', images, stride=layers['patch_embed.proj.weight'].shape[-1], padding=0)
    x = torch.cat([layers['cls_token'].expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    x = x + layers['pos_embed']
    if 'tokenizer_norm' in layers:
        x = layers.layer_norm('tokenizer_norm', x)
    x = layers.blocks('blocks', x, num_heads)
    if 'fc_norm' in layers:
        return layers.layer_norm('fc_norm', x[:, 1:].mean(dim=1))
    return layers.layer_norm('norm', x) if 'norm' in layers else x


def token_logits(
    state_dict: Mapping[str, Tensor], features: Tensor, ids: Tensor, mask: Tensor, num_heads: int
) -> Tensor:
    """Logits of ADDP's token decoder.

    Args:
        state_dict: Weights in the published layout.
        features: (1, 1 + L, C), of :func:`encoder_features`.
        ids: Token ids, (1, L).
        mask: (1, L), True where masked.
        num_heads: Attention heads.

    Returns:
        Logits of the whole vocabulary at the class position, the L positions of the image, and the
        positions of the V visible tokens, (1, 1 + L + V, vocabulary).
    """
    layers = OriginalLayers(state_dict)
    words, visible = layers['token_emb.weight'], (~mask[0]).nonzero()[:, 0]
    hidden = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)[..., None]
    x = torch.where(hidden, layers['mask_token'], layers.linear('decoder_embed', features))
    own, masked = layers['decoder_pos_embed_learned'], layers['decoder_pos_mask_embed']
    x = x + torch.cat([own[:, :1], torch.where(mask[..., None], masked[:, 1:], own[:, 1:])], dim=1)
    appended = words[ids[:, visible]] + layers['decoder_pos_token_embed'][:, 1 + visible]
    x = layers.blocks('decoder_blocks', torch.cat([x, appended], dim=1), num_heads)
    return layers.words('mlm_layer', layers.layer_norm('decoder_norm', x), words)


def encoder_agrees(backbone: Any, state_dict: Mapping[str, Tensor], num_heads: int) -> str:
    """Compare a converted encoder with the published implementation, on noise.

    Args:
        backbone: :class:`~addp_mm.models.backbones.ADDPViT` with the converted weights.
        state_dict: The published weights.
        num_heads: Attention heads.

    Returns:
        The result of :func:`~addp_mm.conversion.agreement.compared`.

    Raises:
        ValueError: They disagree.
    """
    if 'fc_norm.weight' not in state_dict:
        backbone.out_type = 'raw'
    size = (side * backbone.patch_size for side in backbone.grid_size)
    images = torch.randn(1, state_dict['patch_embed.proj.weight'].shape[1], *size)
    return compared(features=(backbone(images)[-1], encoder_features(state_dict, images, num_heads)))


def published_agrees(model: Any, state_dict: Mapping[str, Tensor], config: Mapping) -> str:
    """Compare all converted components with the published implementation, each on the same input.

    Args:
        model: :class:`~addp_mm.models.selfsup.ADDP` with the converted weights.
        state_dict: The published weights.
        config: Config of the model, for the numbers of heads.

    Returns:
        The result of :func:`~addp_mm.conversion.agreement.compared`.

    Raises:
        ValueError: They disagree.
    """
    heads = {name: config['predictor'][name] for name in ('num_heads', 'decoder_num_heads')}
    prefix = 'vqgan.' if 'vqgan.quantize.embedding.weight' in state_dict else 'token_predictor.vqgan.'
    tokenizer = OriginalVQGAN(state_dict, taming=False, prefix=prefix)
    images = torch.rand(1, model.in_channels, *(side * model.tokenizer.stride for side in model.latent_size))
    ids, codes = model.tokenize(images)
    latents, distances = tokenizer.encode(images)
    mask_next = torch.rand(ids.shape) < 0.8
    mask = mask_next & (torch.rand(ids.shape) < 0.8)
    noisy, target = model.add_noise(ids, codes, mask, mask_next)
    given, given_next = (
        predicted_probabilities(state_dict, ids, each, prefix='token_predictor.', **heads) for each in (mask, mask_next)
    )
    expected = (given_next @ tokenizer.codes).transpose(1, 2).unflatten(2, codes.shape[2:])
    mixed = torch.where(mask.unflatten(1, codes.shape[2:])[:, None], expected, codes)
    normalised = (noisy.clamp(0, 1) - model.pixel_mean) / model.pixel_std
    features = encoder_features(state_dict, normalised, config['backbone']['arch']['num_heads'])
    logits = token_logits(state_dict, features, ids, mask, config['neck']['num_heads'])
    return compared(
        latents=(model.tokenizer.encode_continuous(images), latents),
        distances_of_ids=(distances.gather(2, ids[..., None])[..., 0], distances.amin(2)),
        noisy=(noisy, tokenizer.decode(mixed)),
        target=(target, given[mask]),
        features=(model.extract_feat(noisy)[-1], features),
        logits=(model.predict_tokens(noisy, ids, mask), logits[:, 1 : 1 + ids.shape[1], : target.shape[-1]]),
    )
