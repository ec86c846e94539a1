# Copyright (c) addp_mm contributors. Apache-2.0.
"""Logs, images and results like those of the demo's steps."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
CLASSES = ('bag', 'coat', 'dress')


def write_scalars(folder: Path, start: str, records: list[dict]) -> Path:
    file = folder / start / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return file


def train_records(steps, scale=1.0) -> list[dict]:
    return [dict(lr=1e-3, loss=scale / step, time=0.1, iter=step, step=step) for step in steps]


def png(path: Path, size=(64, 64), seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def box_mask(x, y, w, h) -> dict:
    """A filled box as uncompressed run lengths of a 64 × 64 image."""
    counts = [64 * x + y, h]
    for _ in range(w - 1):
        counts += [64 - h, h]
    return dict(size=[64, 64], counts=[*counts, 64 * 64 - sum(counts)])


def write_data(root: Path, scenes: int = 3) -> None:
    """A small set in the layout of FashionScenes: two garments in each scene."""
    annotations, images = [], []
    for index in range(scenes):
        name = f'{index:06d}.png'
        for split in ('train', 'val'):
            png(root / 'scenes' / split / name, seed=index)
        labels = np.ones((64, 64), np.uint8)
        labels[8:30, 8:28] = 2
        (root / 'labels/val').mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / 'labels/val' / name)
        images.append(dict(id=index + 1, file_name=name, width=64, height=64))
        for category, box in ((1, (8, 8, 20, 22)), (3, (34, 20, 18, 30))):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=category,
                    bbox=list(box),
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=box_mask(*box),
                )
            )
    truth = dict(
        images=images, annotations=annotations, categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    )
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_val.json').write_text(json.dumps(truth))
    (root / 'fashion_scenes.json').write_text(json.dumps(dict(train=20000, val=1000)))


def write_outputs(folder: Path) -> None:
    """What the steps of a demo in ``folder`` write; ADDP weights are better by 10."""
    write_data(folder / 'fashion_scenes')
    png(folder / 'samples/grid.png', (530, 530))
    png(folder / 'samples/steps.png', (1200, 200))
    png(folder / 'edits/inpaint/figures/000015.png', (796, 132))
    png(folder / 'edits/outpaint/figures/000013.png', (796, 198))
    for index in range(40):
        png(folder / f'garments/images/{index:06d}.png', seed=index)
    write_predictions(folder)
    write_scalars(folder / 'pretrain', '20260101_000000', train_records(range(5, 55, 5), 30))
    png(folder / 'pretrain/20260101_000000/vis_data/vis_image/generated_50.png', (260, 260))
    for weights, better in (('addp', 10), ('random', 0)):
        run = folder / f'det_{weights}'
        write_scalars(run / 'train', '20260101_000000', train_records(range(10, 60, 10), 40 - better))
        (run / 'test').mkdir()
        metrics = {'coco/bbox_mAP': 0.212 + better / 100, 'coco/segm_mAP': 0.187 + better / 100}
        (run / 'test/metrics.json').write_text(json.dumps(metrics))


def write_predictions(folder: Path) -> None:
    """What the tests of the shipped detector and segmentor write."""
    detector, segmentor = folder / 'shipped_det', folder / 'shipped_seg'
    detector.mkdir()
    found = [
        dict(image_id=1, category_id=1, score=score, bbox=[8, 8, 20, 20], segmentation=box_mask(8, 8, 20, 20))
        for score in (0.82, 0.12)
    ]
    for kind in ('bbox', 'segm'):
        (detector / f'predictions.{kind}.json').write_text(json.dumps(found))
    (detector / 'metrics.json').write_text(json.dumps({'coco/bbox_mAP': 0.401, 'coco/segm_mAP': 0.352}))
    shutil.copytree(folder / 'fashion_scenes/labels/val', segmentor / 'labels')
    (segmentor / 'metrics.json').write_text(json.dumps({'mIoU': 45.3, 'aAcc': 90.0}))
