# Copyright (c) addp_mm contributors. Apache-2.0.
"""Predictions of 16 px, and a feature extractor: a ViT of three thousand weights."""

from __future__ import annotations

from pathlib import Path

import torch

from addp_mm.registry import MODELS

BACKBONE = dict(
    type='addp_mm.ADDPViT',
    arch=dict(embed_dims=8, num_layers=1, num_heads=2),
    img_size=16,
    patch_size=4,
    out_type='avg_featmap',
)


def write_weights(path: Path, seed: int = 0, **changes) -> dict:
    """Write seeded weights to ``path``, and return the config of an extractor that loads them."""
    backbone = {**BACKBONE, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(MODELS.build(backbone).state_dict(), path)
    return dict(
        type='addp_mm.BackboneFeatures',
        name='tiny-vit',
        backbone=dict(**backbone, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(path))),
    )


def predictions(count: int, channels: int = 3, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, 16, 16, generator=generator)
    noise = 0.1 * torch.randn(images.shape, generator=generator)
    ids = torch.randint(32, (count, 4), generator=generator)
    return [
        dict(image=image, reconstruction=(image + error).clamp(0, 1), ids=row)
        for image, error, row in zip(images, noise, ids, strict=True)
    ]
