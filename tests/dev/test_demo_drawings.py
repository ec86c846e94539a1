# Copyright (c) addp_mm contributors. Apache-2.0.
"""Drawings of scenes with boxes, masks and label maps."""

import numpy as np
from demo_report.drawings import CLASS_COLOURS, Instance, decode_mask, detected_instances, instance_cell, scene_grid
from helpers.demo_files import CLASSES, box_mask
from matplotlib.colors import to_rgb
from PIL import Image


def test_detections_with_a_high_score_are_drawn_without_duplicates():
    boxes = {'bag': (8, 8, 20, 20), 'coat': (9, 8, 20, 20), 'dress': (36, 20, 18, 30), 'far': (2, 50, 6, 6)}
    found = [
        dict(image_id=image_id, category_id=category, score=score, bbox=list(box), segmentation=box_mask(*box))
        for image_id, category, score, box in (
            (1, 3, 0.4, boxes['dress']),
            (1, 1, 0.8, boxes['bag']),
            (1, 2, 0.7, boxes['coat']),
            (1, 2, 0.1, boxes['far']),
            (2, 2, 0.9, boxes['far']),
        )
    ]
    drawn = detected_instances(found, image_id=1, min_score=0.4)
    assert [(one.label, one.score, one.box) for one in drawn] == [(0, 0.8, boxes['bag']), (2, 0.4, boxes['dress'])]
    assert len(detected_instances(found, image_id=1, min_score=0.0)) == 3
    assert detected_instances(found, image_id=2, min_score=0.95) == []


def test_masks_are_tinted_and_boxes_are_drawn():
    mask = decode_mask(box_mask(8, 16, 20, 22))
    assert mask.sum() == 20 * 22
    assert mask[16:38, 8:28].all()
    scene = Image.new('RGB', (64, 64), (100, 100, 100))
    cell = instance_cell(scene, [Instance(1, (8, 16, 20, 22), mask, 0.5)])
    colour = 255 * np.array(to_rgb(CLASS_COLOURS[1]))
    assert np.abs(cell.pixels[20, 10] - (40 + 0.6 * colour)).max() <= 1
    assert len(np.unique(cell.pixels[0, 0])) == 1
    assert scene_grid(['Scene'], [[cell]], CLASSES).alt == '1 scenes; columns: Scene'
