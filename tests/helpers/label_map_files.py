# Copyright (c) addp_mm contributors. Apache-2.0.
"""Made-up label maps, and folders of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from addp_mm.datasets.token_labels.label_map import LabelMap
from addp_mm.datasets.token_labels.map_folder import MapFolder, create_folder


def random_map(seed: int = 0, num_classes: int = 11, top_k: int = 3, size: tuple[int, int] = (14, 14)) -> LabelMap:
    """The label map of random logits."""
    logits = 2 * torch.randn(num_classes, *size, generator=torch.Generator().manual_seed(seed))
    scores, classes = logits.softmax(0).topk(top_k, 0)
    return LabelMap(scores, classes)


def dense(label_map: LabelMap, num_classes: int) -> Tensor:
    """The probabilities of all classes, (C, h, w); written independently of the package."""
    top_k, height, width = label_map.scores.shape
    out = torch.empty(num_classes, height, width)
    for row in range(height):
        for column in range(width):
            scores = dict(
                zip(label_map.classes[:, row, column].tolist(), label_map.scores[:, row, column].tolist(), strict=True)
            )
            rest = (1 - sum(scores.values())) / (num_classes - top_k)
            for number in range(num_classes):
                out[number, row, column] = scores.get(number, rest)
    return out


def write_maps(folder: Path, names: list[str], num_classes: int = 11, **settings) -> MapFolder:
    """Write a random map for each image: that of the n-th name, sorted, has seed n."""
    about = dict(num_classes=num_classes, top_k=3, map_size=[14, 14], images_per_file=2) | settings
    store = create_folder(folder, names, about, {})
    for number in range(store.num_files):
        maps = [random_map(row, num_classes, about['top_k'], tuple(about['map_size'])) for row in store.rows(number)]
        store.write(number, torch.stack([m.scores for m in maps]), torch.stack([m.classes for m in maps]))
    return store
