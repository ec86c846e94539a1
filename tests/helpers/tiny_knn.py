# Copyright (c) addp_mm contributors. Apache-2.0.
"""A k-NN test of a second: images of 2 px, features of three numbers, odd numbers of samples."""

from __future__ import annotations

import itertools

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

import addp_mm.registry  # noqa: F401

_RUNS = itertools.count()
CLASSES = 5


def samples(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (number, 3, 2, 2) near the means of their classes, and labels."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (number,), generator=generator)
    features = means[labels] + 0.8 * torch.randn(number, 3, generator=generator)
    return features[..., None, None].expand(-1, -1, 2, 2).contiguous(), labels


@DATASETS.register_module(force=True)
class PointsInSpace(BaseDataset):
    def __init__(self, number: int, seed: int) -> None:
        self.images, self.labels = samples(number, seed)
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict]:
        return [dict(index=i) for i in range(len(self.labels))]

    def prepare_data(self, index: int) -> dict:
        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(self.labels[index]))


@MODELS.register_module(force=True)
class MeanColour(BaseModel):
    """Features are the mean colour, (B, 3), or with ``flat=False`` the image."""

    def __init__(self, flat: bool = True, data_preprocessor: dict | None = None) -> None:
        super().__init__(dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=False))
        self.flat = flat
        self.scale = torch.nn.Parameter(torch.ones(()))

    def extract_feat(self, inputs):
        return (self.scale * (inputs.mean((2, 3)) if self.flat else inputs),)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise AssertionError('k-NN reads extract_feat')


def loader(number: int, seed: int, batch_size: int) -> dict:
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='PointsInSpace', number=number, seed=seed),
    )


def build_runner(work_dir, model: dict | None = None, **test_cfg) -> Runner:
    name = f'knn_{next(_RUNS)}'
    return Runner(
        model=dict(type='MeanColour', **(model or {})),
        work_dir=str(work_dir),
        test_dataloader=loader(31, 1, 4),
        test_cfg=dict(
            dict(type='addp_mm.NearestNeighbourTestLoop', bank_dataloader=loader(53, 2, 8), num_neighbours=(3, 7)),
            **test_cfg,
        ),
        test_evaluator=dict(type='addp_mm.NeighbourAccuracy', topk=(1, 3)),
        default_scope='mmengine',
        experiment_name=name,
        log_level='WARNING',
        cfg=Config(),
        visualizer=dict(type='Visualizer', vis_backends=[], name=name),
    )
