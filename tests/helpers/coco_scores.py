# Copyright (c) addp_mm contributors. Apache-2.0.
"""A small COCO file, predictions for it, and their scores by mmdet's CocoMetric."""

import json

import addp_mm  # noqa: F401  # before mmdet: its models need our mmcv._ext

CLASSES = ('bag', 'coat')
SIZE = 64
# (image, class, x, y, width, height) of the objects
OBJECTS = [
    (1, 0, 4, 4, 20, 16),
    (1, 1, 30, 8, 24, 40),
    (1, 0, 8, 40, 12, 18),
    (2, 1, 10, 10, 30, 30),
    (2, 0, 44, 2, 14, 50),
]
# how far each object's prediction is off to the right, in pixels; None: it is not found
SHIFTS = [0, 2, 1, 0, None]


def rectangle(x, y, width, height):
    """The polygon of a box."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def coco_content(first_id: int = 1) -> dict:
    """Content of a COCO file with two images and five objects."""
    annotations = []
    for number, (image, label, *box) in enumerate(OBJECTS, first_id):
        record = dict(id=number, image_id=image, category_id=label + 1, bbox=box, area=box[2] * box[3], iscrowd=0)
        annotations.append(dict(record, segmentation=rectangle(*box)))
    return dict(
        images=[dict(id=number, file_name=f'{number}.png', width=SIZE, height=SIZE) for number in (1, 2)],
        categories=[dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)],
        annotations=annotations,
    )


def predictions(content: dict, extra=(), shifts=SHIFTS) -> list[dict]:
    """One data sample for each image, as a detector returns it, with boxes and masks.

    Args:
        content: Content of the annotation file, for the ids of its images.
        extra: More predictions as (image, label, box), with the score 0.95.
        shifts: See ``SHIFTS``.
    """
    import torch

    samples = []
    for number, image in enumerate(content['images'], 1):
        found = [
            (label, (x + shift, y, width, height), 0.9 - 0.1 * k)
            for k, ((owner, label, x, y, width, height), shift) in enumerate(zip(OBJECTS, shifts, strict=True))
            if owner == number and shift is not None
        ]
        found += [(label, box, 0.95) for owner, label, box in extra if owner == number]
        masks = torch.zeros(len(found), SIZE, SIZE, dtype=torch.uint8)
        for mask, (_, (x, y, width, height), _) in zip(masks, found, strict=True):
            mask[y : y + height, x : x + width] = 1
        boxes = [[x, y, x + width, y + height] for _, (x, y, width, height), _ in found]
        pred = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([label for label, *_ in found]),
            scores=torch.tensor([score for *_, score in found]),
            masks=masks,
        )
        samples.append(dict(img_id=image['id'], ori_shape=(SIZE, SIZE), pred_instances=pred))
    return samples


def scores(
    content: dict, folder, extra=(), shifts=SHIFTS, classes=CLASSES, metric=('bbox', 'segm'), **settings
) -> dict:
    """Metrics of the predictions by mmdet's CocoMetric on a file with this content."""
    from mmdet.evaluation import CocoMetric

    path = folder / 'scored.json'
    path.write_text(json.dumps(content))
    coco = CocoMetric(ann_file=str(path), metric=list(metric), **settings)
    coco.dataset_meta = dict(classes=classes)
    samples = predictions(content, extra, shifts)
    coco.process({}, samples)
    return coco.evaluate(len(samples))
