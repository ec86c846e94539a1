# Copyright (c) addp_mm contributors. Apache-2.0.
"""Learning rates and layer decay with which backbones are fine-tuned, and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Images for which each learning rate is given: a batch of mmdet, of mmsegmentation, and 256.
BATCHES = {'det': 16, 'seg': 16, 'cls': 256}


@dataclass(frozen=True)
class Recipe:
    """How AdamW fine-tunes one kind of backbone for one task.

    Args:
        lr: Learning rate at ``BATCHES`` images.
        weight_decay: Weight decay.
        layer_decay: Factor of the learning rate from each layer to the one before it.
        source: Where the values come from.
        drop_path: Stochastic depth. Defaults to 0.1.
    """

    lr: float
    weight_decay: float
    layer_decay: float
    source: str
    drop_path: float = 0.1


Recipes = Mapping[str, Recipe]

VIT_B: Recipes = {
    'det': Recipe(1e-4, 0.05, 0.7, 'iBOT (arXiv 2111.07832), layer decay of ViTDet (arXiv 2203.16527)'),
    'seg': Recipe(1e-4, 0.05, 0.65, 'MAE (arXiv 2111.06377)'),
    'cls': Recipe(1e-3, 0.05, 0.65, 'ADDP (arXiv 2306.05423)'),
}
VIT_L: Recipes = {
    'det': Recipe(1e-4, 0.05, 0.8, 'iBOT (arXiv 2111.07832), layer decay of ViTDet (arXiv 2203.16527)', 0.4),
    'seg': Recipe(4e-5, 0.05, 0.9, 'BEiT v2 (arXiv 2208.06366)', 0.2),
    'cls': Recipe(2.5e-4, 0.05, 0.8, 'ADDP (arXiv 2306.05423)', 0.2),
}
SWIN: Recipes = {
    'det': Recipe(1e-4, 0.05, 1.0, 'Swin (arXiv 2103.14030)', 0.2),
    'seg': Recipe(6e-5, 0.01, 1.0, 'Swin (arXiv 2103.14030)', 0.3),
    'cls': Recipe(2.5e-4, 0.05, 1.0, 'Swin (arXiv 2103.14030)', 0.2),
}
CONVNEXT: Recipes = {
    'det': Recipe(1e-4, 0.05, 0.95, 'ConvNeXt (arXiv 2201.03545)', 0.4),
    'seg': Recipe(1e-4, 0.05, 0.9, 'ConvNeXt (arXiv 2201.03545)', 0.4),
    'cls': Recipe(2.5e-4, 0.05, 0.9, 'ConvNeXt (arXiv 2201.03545)', 0.1),
}
VOLO: Recipes = {
    'det': Recipe(1e-4, 0.05, 1.0, 'Swin (arXiv 2103.14030)'),
    'seg': Recipe(6e-5, 0.01, 1.0, 'LV-ViT (arXiv 2104.10858), the work of the same authors'),
    'cls': Recipe(4e-4, 0.05, 1.0, 'VOLO (arXiv 2106.13112)'),
}
