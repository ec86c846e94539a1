# Copyright (c) addp_mm contributors. Apache-2.0.
"""Backbones of the zoo with few and narrow blocks, so that a swap is a test of seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from addp_mm.swap import zoo

TINY = {
    'addp_b': dict(arch=dict(embed_dims=32, num_layers=4, num_heads=2)),
    'swin_t': dict(model_kwargs=dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))),
    'volo_d1': dict(arch=dict(layers=(1, 1, 1, 1), embed_dims=(16, 32), num_heads=(1, 2), stem_channels=8)),
}


@pytest.fixture
def tiny_zoo(monkeypatch):
    """Make the sizes of three backbones tiny. All their other settings are those of the zoo."""
    for name, options in TINY.items():
        entry = zoo.ZOO[name]
        windows = entry.large_images and dict(entry.large_images, global_blocks=(0, 1, 2, 3))
        monkeypatch.setitem(
            zoo.ZOO, name, replace(entry, backbone=dict(entry.backbone, **options), large_images=windows)
        )
