# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tasks with their metrics, and data sets with the configs into which backbones are put."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from addp_mm.errors import ConfigError


@dataclass(frozen=True)
class Metric:
    """A number that tools/test.py writes.

    Args:
        title: Its name in tables.
        key: Its name in metrics.json.
        factor: Converts it to percent. Defaults to 1.0.
        if_empty: Its value if the model detected nothing and the metric is missing. Defaults to
            None.
    """

    title: str
    key: str
    factor: float = 1.0
    if_empty: float | None = None


@dataclass(frozen=True)
class Task:
    """A task: its title, and its metrics with the most important one first."""

    title: str
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class BenchmarkData:
    """A data set of the benchmark.

    Args:
        title: Its name in tables.
        bases: For each task, the shipped config into which the backbones are put.
        marker: A file or folder in it that shows that it is there.
        source: Where it comes from, as a sentence in which ``{folder}`` is its folder.
    """

    title: str
    bases: Mapping[str, str]
    marker: str
    source: str

    def require(self, folder: Path) -> None:
        """Check that the data are there.

        Raises:
            ConfigError: The folder or its ``marker`` does not exist.
        """
        if not (folder / self.marker).exists():
            raise ConfigError(
                f'{self.title} is not in {folder}: {folder / self.marker} does not exist. '
                f'{self.source.format(folder=folder)}, or give its folder by --data-root'
            )


TASKS = {
    'cls': Task('Classification', (Metric('Accuracy', 'accuracy/top1'),)),
    'det': Task(
        'Detection', (Metric('Box AP', 'coco/bbox_mAP', 100.0, 0.0), Metric('Mask AP', 'coco/segm_mAP', 100.0, 0.0))
    ),
    'seg': Task('Segmentation', (Metric('mIoU', 'mIoU'),)),
}
DATA = {
    'coco': BenchmarkData(
        'COCO 2017',
        {'det': 'det/mask-rcnn_r50_fpn_1x_coco'},
        'annotations/instances_train2017.json',
        'Download it with: mim download mmdet --dataset coco2017 --dest {folder}',
    ),
    'ade20k': BenchmarkData(
        'ADE20K',
        {'seg': 'seg/upernet_r50_4xb4-160k_ade20k-512x512'},
        'images/training',
        'Unpack ADEChallengeData2016.zip of the MIT Scene Parsing Benchmark there',
    ),
    'imagenet': BenchmarkData(
        'ImageNet-1k',
        {'cls': 'cls/resnet50_ft_8xb128-bf16-coslr-100e_in1k-256px'},
        'train',
        'Unpack ILSVRC2012 there, with a folder for each class in train/ and val/',
    ),
    'fashion_scenes': BenchmarkData(
        'FashionScenes',
        {
            'cls': 'cls/addp-vit-nano-p8_from-scratch_1xb32-fp32-300i_fashion-scenes-64px',
            'det': 'det/mask-rcnn_addp-vit-nano-p8_from-scratch_1xb16-fp32-300i_fashion-scenes-64px',
            'seg': 'seg/upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px',
        },
        'fashion_scenes.json',
        'Write it with: python tools/dataset_converters/fashion_scenes.py {folder}',
    ),
}
# data set of each task if none is chosen
USUAL_DATA = {'cls': 'imagenet', 'det': 'coco', 'seg': 'ade20k'}


def tasks_of(data: str) -> list[str]:
    """The tasks of a data set, in the order of :data:`TASKS`."""
    return [task for task in TASKS if task in DATA[data].bases]
