# Copyright (c) addp_mm contributors. Apache-2.0.
"""A few images in the folder layouts of ADE20K and of Cityscapes."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_ade20k(root: Path, sizes=((80, 96), (50, 260))) -> Path:
    """Write images of (height, width) for training and validation; label 0 means unlabelled."""
    for folder, split in (('training', 'train'), ('validation', 'val')):
        for number, size in enumerate(sizes):
            name = f'ADE_{split}_{number:08d}'
            _write(root / 'images' / folder / f'{name}.jpg', root / 'annotations' / folder / f'{name}.png', size, 151)
    return root


def write_cityscapes(root: Path, sizes=((64, 128), (64, 128))) -> Path:
    """Write images of one city, with label maps of training ids."""
    for split in ('train', 'val'):
        for number, size in enumerate(sizes):
            name = f'town/town_{number:06d}_000019'
            _write(
                root / 'leftImg8bit' / split / f'{name}_leftImg8bit.png',
                root / 'gtFine' / split / f'{name}_gtFine_labelTrainIds.png',
                size,
                19,
            )
    return root


def _write(image: Path, labels: Path, size: tuple[int, int], num_labels: int) -> None:
    random = np.random.default_rng(0)
    image.parent.mkdir(parents=True, exist_ok=True)
    labels.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image)
    blocks = random.integers(0, num_labels, (height // 16 + 1, width // 16 + 1), dtype=np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((16, 16), np.uint8))[:height, :width]).save(labels)
