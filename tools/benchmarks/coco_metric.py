# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time mmdet's CocoMetric and addp_mm.FastCocoMetric on the same made-up predictions.

Both take turns in one process, so that other load of the machine affects both. The time is that of
``evaluate``: the predictions are written as JSON and read again, matched and accumulated. The tool
fails if the values differ.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from addp_mm.cli_options import ToolParser, number
from addp_mm.errors import exit_on_interrupt
from addp_mm.report.machine import machine_class

SIZE = 640  # sides of the images in pixels
CLASSES = 80


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num-images', type=number(int, 1), default=500, help='images [500; val2017 has 5000]')
    parser.add_argument('--objects', type=number(int, 1), default=7, help='objects of an image, as in COCO [7]')
    parser.add_argument('--detections', type=number(int, 1), default=100, help='predictions of an image [100]')
    parser.add_argument('--rounds', type=number(int, 1), default=3, help='turns of each metric [3]')
    parser.add_argument('--seed', type=number(int, 0), default=0, help='seed of the boxes [0]')
    return parser.parse_args(argv)


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (count, 4) as x1, y1, x2, y2 inside the image, of whole pixels."""
    sides = rng.integers(8, SIZE // 3, (count, 2))
    starts = rng.integers(0, SIZE - sides)
    return np.concatenate([starts, starts + sides], axis=1).astype(np.float64)


def mask_of(box: np.ndarray) -> dict:
    """The compressed RLE of a filled box."""
    from pycocotools import mask

    x1, y1, x2, y2 = box.tolist()
    return mask.merge(mask.frPyObjects([[x1, y1, x2, y1, x2, y2, x1, y2]], SIZE, SIZE))


def annotations(rng: np.random.Generator, images: int, objects: int) -> tuple[dict, list[np.ndarray]]:
    """Content of a COCO file, and the boxes of each image."""
    found = [boxes(rng, objects) for _ in range(images)]
    records = []
    for image, of_image in enumerate(found, 1):
        for x1, y1, x2, y2 in of_image.tolist():
            record = dict(id=len(records) + 1, image_id=image, category_id=int(rng.integers(CLASSES)) + 1, iscrowd=0)
            record |= dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
            records.append(record | dict(segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]]))
    names = [dict(id=k + 1, name=f'class {k}') for k in range(CLASSES)]
    listed = [dict(id=k + 1, file_name=f'{k}.jpg', width=SIZE, height=SIZE) for k in range(images)]
    return dict(images=listed, categories=names, annotations=records), found


def predictions(rng: np.random.Generator, content: dict, found: list[np.ndarray], count: int) -> list[dict]:
    """A data sample for each image, as a detector returns it: moved objects and other boxes."""
    import torch

    labels = iter(one['category_id'] - 1 for one in content['annotations'])
    samples = []
    for image, of_image in enumerate(found, 1):
        own = [next(labels) for _ in of_image]
        moved = (of_image + rng.integers(-6, 7, of_image.shape)).clip(0, SIZE)[:count]
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        box = np.concatenate([moved, boxes(rng, count - len(moved))])
        label = [*own[: len(moved)], *rng.integers(CLASSES, size=count - len(moved)).tolist()]
        predicted = dict(bboxes=torch.tensor(box), scores=torch.tensor(rng.random(count)), labels=torch.tensor(label))
        predicted['masks'] = [mask_of(one) for one in box]
        samples.append(dict(img_id=image, ori_shape=(SIZE, SIZE), pred_instances=predicted))
    return samples


def timed(metric, samples: list[dict]) -> tuple[float, dict]:
    """Seconds of ``evaluate``, and the values."""
    metric.process({}, samples)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        values = metric.evaluate(len(samples))
        return time.perf_counter() - start, values


def compared(name: str, path: Path, content: dict, samples: list[dict], rounds: int) -> str:
    """Time both metrics in turns; a row of the table.

    Args:
        name: 'bbox' or 'segm'.
        path: The annotation file.
        content: Its content.
        samples: The predictions.
        rounds: Turns of each metric.
    """
    from addp_mm.evaluation.fast_coco import CocoMetric, FastCocoMetric

    with contextlib.redirect_stdout(io.StringIO()):
        metrics = [kind(ann_file=str(path), metric=name) for kind in (CocoMetric, FastCocoMetric)]
    for metric in metrics:
        metric.dataset_meta = dict(classes=[one['name'] for one in content['categories']])
    times = []
    for _ in range(rounds):
        (slow, expected), (fast, found) = (timed(metric, samples) for metric in metrics)
        if found != expected:
            raise SystemExit(f'error: the values of {name} differ: {expected} and {found}')
        times.append((slow, fast))
    return row(name, times)


def row(name: str, times: list[tuple[float, float]]) -> str:
    """A row of the table, from the seconds of each turn."""
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [one / other for one, other in times]
    spread = f'{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})'
    return f'| {name} | {slow:.2f} | {fast:.2f} | {spread} |'


def run(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    import faster_coco_eval
    from mmengine.logging import MMLogger

    MMLogger.get_instance('coco_metric', log_level='WARNING')
    rng = np.random.default_rng(args.seed)
    content, found = annotations(rng, args.num_images, args.objects)
    samples = predictions(rng, content, found, args.detections)
    print(
        f'{machine_class()}; faster-coco-eval {faster_coco_eval.__version__}; {args.num_images} images, '
        f'{len(content["annotations"])} objects, {args.num_images * args.detections} predictions; median seconds of '
        f'{args.rounds} turns'
    )
    print('| metric | pycocotools | faster-coco-eval | ratio, median (range) |')
    print('|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'instances.json')
        path.write_text(json.dumps(content))
        for name in ('bbox', 'segm'):
            print(compared(name, path, content, samples, args.rounds))


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    with exit_on_interrupt('the table is not complete'):
        run(args)


if __name__ == '__main__':
    main()
