# Copyright (c) addp_mm contributors. Apache-2.0.
"""The nano Mask R-CNN on one process and on two, with samplers without random numbers."""

from __future__ import annotations

from pathlib import Path

import mmdet.models  # noqa: F401  # once, before the forks
import numpy as np
import torch
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from helpers.jobs import in_one, in_two
from helpers.recording import train

CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/mask-rcnn_addp-vit-nano-p8.py'


@TASK_UTILS.register_module()
class FirstSampler(BaseSampler):
    """The first of RandomSampler's candidates."""

    def _sample_pos(self, assign_result, num_expected, **_):
        return torch.nonzero(assign_result.gt_inds > 0).flatten()[:num_expected]

    def _sample_neg(self, assign_result, num_expected, **_):
        return torch.nonzero(assign_result.gt_inds == 0).flatten()[:num_expected]


class TwoBoxes(Dataset):
    """Noise of 64 px with two objects at random positions."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        random = np.random.default_rng(index)
        image = torch.from_numpy(random.integers(0, 128, (3, 64, 64)).astype(np.uint8))
        masks, boxes = np.zeros((2, 64, 64), np.uint8), []
        for mask, x in zip(masks, (2, 34), strict=True):
            left, top = x + random.integers(8), random.integers(30)
            width, height = random.integers(12, 20, 2)
            mask[top : top + height, left : left + width] = 1
            image[:, top : top + height, left : left + width] += 100
            boxes.append([left, top, left + width, top + height])
        instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            masks=BitmapMasks(masks, 64, 64),
            labels=torch.from_numpy(random.integers(0, 10, 2)),
        )
        info = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), img_id=index)
        return dict(inputs=image, data_samples=DetDataSample(gt_instances=instances, metainfo=info))


def settings() -> Config:
    model = Config.fromfile(CONFIG).model
    model.backbone.init_cfg = None
    model.backbone.arch = dict(embed_dims=32, num_layers=2, num_heads=2)
    model.neck.in_channels = 32
    # Losses are means over samples. With equal numbers for each image, the mean over ranks is that
    # of the whole batch: true boxes come first among the regions, and two of sixteen are positive.
    model.train_cfg.rpn.sampler.type = 'FirstSampler'
    model.train_cfg.rcnn.sampler.update(type='FirstSampler', num=16, pos_fraction=2 / 16, add_gt_as_proposals=True)
    return model


def start(_: Path, world_size: int) -> dict:
    """The initial weights of all trainings."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(settings())
    model.init_weights()
    return dict(state_dict=model.state_dict())


def detect(work_dir: Path, world_size: int, **options) -> dict:
    return train(
        work_dir,
        world_size,
        settings(),
        TwoBoxes(),
        4,
        [],
        scope='mmdet',
        collate='pseudo_collate',
        load_from=str(work_dir.parent / 'start_0.pth'),
        **options,
    )


def run(folder: Path) -> None:
    in_one(folder, 'start', start)
    in_one(folder, 'one', detect)
    in_two(folder, 'ddp', detect)
    in_two(folder, 'sharded', detect, strategy=dict(type='addp_mm.ShardedStrategy'))
