# Copyright (c) addp_mm contributors. Apache-2.0.
"""Folders and .npz files of small images, and an extractor without weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from addp_mm.evaluation import FeatureExtractor


class ColourFeatures(FeatureExtractor):
    """Stands for FID's Inception: mean and deviation of each colour, and four logits of them."""

    is_inception = has_logits = True
    name, fingerprint, dims = 'inception-v3', 'colours', 6

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        values = images.float().flatten(2)
        return torch.cat([values.mean(2), values.std(2)], 1)

    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self(images)
        return features, features[:, :4] / 10


def pixels(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    """Images, uint8 (N, size, size, 3), of different brightness."""
    generator = np.random.default_rng(seed)
    light = generator.integers(20, 200, (count, 1, 1, 3))
    return (light + generator.integers(0, 50, (count, size, size, 3))).astype(np.uint8)


def write_folder(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f'{index:04}.png')
    return folder
