# Copyright (c) addp_mm contributors. Apache-2.0.
"""Random COCO annotations and predictions with the cases in which evaluators may differ."""

from __future__ import annotations

import numpy as np

SIZE = 160  # boxes up to it are small, medium and large


def random_box(rng: np.random.Generator) -> list[float]:
    """A box x, y, width, height inside the image."""
    width, height = rng.uniform(4, SIZE - 10, 2)
    x, y = rng.uniform(0, (SIZE - width, SIZE - height))
    return [float(value) for value in (x, y, width, height)]


def polygon(box: list[float]) -> list[list[float]]:
    """A hexagon inside a box."""
    x, y, w, h = box
    return [[x, y + h / 2, x + w / 4, y, x + w, y, x + w, y + h / 2, x + 3 * w / 4, y + h, x, y + h]]


def region(box: list[float]) -> dict:
    """The mask of a box as an uncompressed RLE, as in COCO's crowds."""
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    x, y, width, height = (int(value) for value in box)
    mask[y : y + height, x : x + width] = 1
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return dict(size=[SIZE, SIZE], counts=[0, *lengths] if flat[0] else lengths)


def random_annotations(rng: np.random.Generator, images: int, classes: int) -> dict:
    """Content of a COCO file; every fourth image is empty, every sixth object is a crowd."""
    annotations: list[dict] = []
    for image in range(1, images + 1):
        for _ in range(0 if image % 4 == 0 else int(rng.integers(1, 8))):
            box, is_crowd = random_box(rng), bool(rng.random() < 1 / 6)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=int(rng.integers(1, classes)),  # the last class has no object
                    bbox=box,
                    # areas of COCO are those of the masks, and not those of the boxes
                    area=box[2] * box[3] * float(rng.uniform(0.5, 1)),
                    iscrowd=int(is_crowd),
                    segmentation=region(box) if is_crowd else polygon(box),
                )
            )
    return dict(
        images=[dict(id=number, file_name=f'{number}.png', width=SIZE, height=SIZE) for number in range(1, images + 1)],
        categories=[dict(id=number, name=f'class {number}') for number in range(1, classes + 1)],
        annotations=annotations,
    )


def random_predictions(rng: np.random.Generator, content: dict) -> list[dict]:
    """Moved objects, and others; scores have one digit, so that many are equal.

    Image 1 has 130 predictions of one class, more than the 100 of COCO's AP. Image 2 has none.
    """
    classes = len(content['categories'])
    found = [
        dict(
            image_id=one['image_id'],
            category_id=one['category_id'] if rng.random() < 0.8 else int(rng.integers(1, classes + 1)),
            bbox=[max(0.0, side + float(rng.normal(0, 3))) for side in one['bbox'][:2]] + one['bbox'][2:],
        )
        for one in content['annotations']
        for _ in range(2)
        if one['image_id'] != 2 and rng.random() < 0.8
    ]
    found += [dict(image_id=1, category_id=1, bbox=random_box(rng)) for _ in range(130)]
    found += [
        dict(image_id=int(rng.integers(3, len(content['images']) + 1)), category_id=1, bbox=random_box(rng))
        for _ in range(20)
    ]
    return [dict(one, score=round(float(rng.random()), 1), segmentation=polygon(one['bbox'])) for one in found]
