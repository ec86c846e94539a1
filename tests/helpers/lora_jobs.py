# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classifiers with LoRA adapters on one process and on two, also with recomputed activations."""

from __future__ import annotations

from pathlib import Path

import mmpretrain.models  # noqa: F401  # once, before the forks
import torch
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from helpers.jobs import in_one, in_two
from helpers.recording import train

SIZES = dict(embed_dim=32, depth=2, num_heads=2)
LORA = dict(rank=2, alpha=4, targets=('qkv', 'fc1'))


def classifier(name: str, lora: dict | None = LORA) -> dict:
    """A classifier whose backbone has adapters; the head is trained too."""
    backbone = dict(
        timm=dict(type='addp_mm.TimmBackbone', model='vit_tiny_patch16_224', model_kwargs=dict(SIZES, img_size=32)),
        cp=dict(
            type='addp_mm.ADDPViT',
            arch=dict(embed_dims=32, num_layers=2, num_heads=2),
            img_size=32,
            out_type='featmap',
            with_cp=True,
        ),
    )[name]
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127] * 3, std=[64] * 3),
        backbone=dict(backbone, lora=lora),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
    )


class Noise(Dataset):
    """Noise of 32 px with labels."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 3))


def job(work_dir: Path, world_size: int, kind: str) -> dict:
    return train(
        work_dir, world_size, classifier(kind), Noise(), 4, hooks=[], scope='mmpretrain', collate='pseudo_collate'
    )


def run(folder: Path) -> None:
    for name in ('timm', 'cp'):
        in_one(folder, f'{name}_one', job, kind=name)
        in_two(folder, f'{name}_two', job, kind=name)
