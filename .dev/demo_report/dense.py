# Copyright (c) addp_mm contributors. Apache-2.0.
"""The part of the demo that detects and segments with the shipped weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from addp_mm.benchmark.data_folder import data_options
from addp_mm.benchmark.finetuning import read_metrics
from addp_mm.benchmark.step import Step
from addp_mm.benchmark.tasks import TASKS
from addp_mm.report.logs import LogError, read_image, read_json
from addp_mm.report.page import Figure, Section, Table
from demo_report.drawings import MAX_IOU, Cell, detected_instances, instance_cell, scene_grid, tinted, true_instances
from demo_report.finetunings import load_config
from demo_report.parts import ASSETS, ROOT, Part, Setting, commands, open_rgb

EXAMPLES = 5
MIN_SCORE = 0.3
COLUMNS = ('Scene', 'Ground truth', 'Mask R-CNN', 'UperNet')


@dataclass(frozen=True)
class Model:
    """A model whose weights ship, and where its test writes the predictions.

    Args:
        task: 'det' or 'seg'.
        name: Its name.
        config: Its config.
        weights: Its weights.
        option: Option of the config that takes the path of the predictions.
        predictions: This path, below the folder of the test.
    """

    task: str
    name: str
    config: Path
    weights: Path
    option: str
    predictions: str

    def folder(self, setting: Setting) -> Path:
        """The folder of its test."""
        return setting.folder / f'shipped_{self.task}'

    def step(self, setting: Setting) -> Step:
        """The test that writes the predictions and the metrics."""
        folder = self.folder(setting)
        options = data_options(load_config(self.config), setting.data_root, ('test',))
        options.append(f'{self.option}={folder / self.predictions}')
        where = ('--work-dir', str(folder), '--out', str(folder / 'metrics.json'))
        return Step(
            folder.name,
            f'{TASKS[self.task].title} with the shipped {self.name}',
            ('tools/test.py', str(self.config), str(self.weights), *where, '--cfg-options', *options),
            (folder / 'metrics.json',),
            (self.weights,),
            (setting.scenes,),
            folder,
            (self.config,),
        )


DETECTOR = Model(
    'det',
    'Mask R-CNN',
    Path('configs/det/mask-rcnn_addp-vit-nano-p8_fpn_1xb16-fp32-12k_fashion-scenes-64px.py'),
    ASSETS / 'mask-rcnn_addp-vit-nano-p8.safetensors',
    'test_evaluator.outfile_prefix',
    'predictions',
)
SEGMENTOR = Model(
    'seg',
    'UperNet',
    Path('configs/seg/upernet_addp-vit-nano-p8_1xb16-bf16-18k_fashion-scenes-64px.py'),
    ASSETS / 'upernet_addp-vit-nano-p8.safetensors',
    'test_evaluator.output_dir',
    'labels',
)


def dense_predictions(setting: Setting) -> Part:
    """Boxes, masks and label maps of held-out scenes, beside the ground truth."""
    steps = [model.step(setting) for model in (DETECTOR, SEGMENTOR)]
    text = (
        'Mask R-CNN and UperNet have the pre-trained transformer as their backbone. They ship with the package, '
        'fine-tuned on FashionScenes. The validation scenes have garments that no training has seen.'
    )
    return Part(
        steps,
        lambda: Section('Detection and segmentation', [_examples(setting, steps), _metrics(setting, steps)], text),
    )


def _examples(setting: Setting, steps: list[Step]) -> Figure:
    truth = read_json(ROOT / setting.data_root / 'annotations/instances_val.json')
    classes = [category['name'] for category in sorted(truth['categories'], key=lambda category: category['id'])]
    detections = _detections(DETECTOR.folder(setting) / DETECTOR.predictions)
    label_maps = ROOT / SEGMENTOR.folder(setting) / SEGMENTOR.predictions
    counts = Counter(annotation['image_id'] for annotation in truth['annotations'])
    records = [record for record in truth['images'] if counts[record['id']] >= 2][:EXAMPLES]
    rows = []
    for record in records:
        image = open_rgb(setting.data_root / 'scenes/val' / record['file_name'])
        found = detected_instances(detections, record['id'], MIN_SCORE)
        # in label maps 0 is unlabelled and 1 is background
        labels = np.asarray(read_image(label_maps / record['file_name'])).astype(int)
        rows.append(
            [
                Cell(np.asarray(image)),
                instance_cell(image, true_instances(truth, record['id'])),
                instance_cell(image, found),
                Cell(tinted(image, labels - 2)),
            ]
        )
    caption = (
        f'The first {len(records)} validation scenes with at least two garments. Mask R-CNN: boxes, masks, classes and '
        f'scores in percent, of all detections with a score of at least {100 * MIN_SCORE:.0f}, without boxes that '
        f'overlap a better one by an IoU above {MAX_IOU:g}. UperNet: the class of '
        'each pixel, by colour; the background is grey.'
    )
    return Figure(caption, commands(steps), [scene_grid(COLUMNS, rows, classes)])


def _detections(prefix: Path) -> list[Mapping]:
    """Boxes and masks of a test: CocoMetric writes them to two files in the same order."""
    masks, boxes = (read_json(ROOT / f'{prefix}.{kind}.json') for kind in ('segm', 'bbox'))
    if len(boxes) != len(masks):
        raise LogError(
            f'{prefix}.bbox.json and .segm.json differ in length: delete {prefix.parent} and run the demo again'
        )
    return [{**mask, 'bbox': box['bbox'], 'score': box['score']} for box, mask in zip(boxes, masks, strict=True)]


def _metrics(setting: Setting, steps: list[Step]) -> Figure:
    rows = []
    for model in (DETECTOR, SEGMENTOR):
        task = TASKS[model.task]
        values = read_metrics(ROOT / model.folder(setting) / 'metrics.json', task.metrics)
        rows += [[title, f'{task.title}, {model.name}', f'{value:.1f}'] for title, value in values.items()]
    scenes = read_json(ROOT / setting.data_root / 'fashion_scenes.json')['val']
    table = Table(['Metric', 'Task', 'Shipped weights'], rows)
    return Figure(f'Percent, on {scenes:,} validation scenes.', commands(steps), table=table)
