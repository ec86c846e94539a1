# Copyright (c) addp_mm contributors. Apache-2.0.
"""Repaired COCO annotations give the right scores in mmdet's CocoMetric."""

import copy

import numpy as np
import pytest
from helpers.coco_scores import OBJECTS, SHIFTS, SIZE, coco_content, rectangle, scores

from addp_mm.checks.coco_masks import mask_area, mask_fault
from addp_mm.checks.coco_repairs import repair_annotations, repairs_in_words
from addp_mm.checks.coco_use import CocoUse

EVALUATED = CocoUse(evaluated=True, masks=True)
TRAINED = CocoUse()


@pytest.fixture(scope='module')
def right(tmp_path_factory):
    """Scores of the file without a fault."""
    return scores(coco_content(), tmp_path_factory.mktemp('right'))


def each(content, **values):
    for annotation in content['annotations']:
        annotation.update(values)


def without(content, key, count=None):
    for annotation in content['annotations'][:count]:
        del annotation[key]


def strings(content):
    for annotation in content['annotations']:
        annotation['id'] = f'a{annotation["id"]}'


def text_references(content):
    for annotation in content['annotations']:
        annotation.update(image_id=str(annotation['image_id']), category_id=str(annotation['category_id']))


FAULTS = {
    'ids from 0': (lambda content: each_id(content, 0), dict(ids=1)),
    'one string': (lambda content: content['annotations'][2].update(id='x'), dict(ids=1)),
    'strings': (strings, dict(ids=5)),
    'references': (text_references, dict(references=10)),
    'no iscrowd': (lambda content: without(content, 'iscrowd'), dict(iscrowd=5)),
    'no iscrowd once': (lambda content: without(content, 'iscrowd', 1), dict(iscrowd=1)),
    'iscrowd null': (lambda content: each(content, iscrowd=None), dict(iscrowd=5)),
    'no area': (lambda content: without(content, 'area'), dict(area=5)),
    'area null': (lambda content: each(content, area=None), dict(area=5)),
    'second polygon': (
        lambda content: content['annotations'][0]['segmentation'].insert(0, [1, 1, 2, 2]),
        dict(polygons=1),
    ),
    'empty polygon': (lambda content: content['annotations'][0]['segmentation'].append([]), dict(polygons=1)),
}


def each_id(content, first):
    for number, annotation in enumerate(content['annotations'], first):
        annotation['id'] = number


@pytest.mark.parametrize('name', FAULTS)
def test_a_repaired_file_has_the_scores_of_the_right_one(right, tmp_path, name):
    content, (fault, counts) = coco_content(), FAULTS[name]
    fault(content)
    before = copy.deepcopy(content)
    repaired, found = repair_annotations(content, EVALUATED)
    assert content == before
    assert found == counts
    assert scores(repaired, tmp_path) == right
    assert repair_annotations(repaired, EVALUATED) == (repaired, {})


def test_a_right_file_needs_no_repair():
    for use in (EVALUATED, TRAINED):
        assert repair_annotations(coco_content(), use) == (coco_content(), {})


def test_ids_that_stock_packages_take_stay(right, tmp_path):
    """Strings as ids of images and categories, and numbers as floats."""
    for change in (lambda number: f'x{number}', float):
        content = coco_content()
        for section in ('images', 'categories'):
            for record in content[section]:
                record['id'] = change(record['id'])
        for annotation in content['annotations']:
            for key in ('image_id', 'category_id'):
                annotation[key] = change(annotation[key])
        assert repair_annotations(content, EVALUATED)[1] == {}
        assert scores(content, tmp_path) == right


def test_a_training_needs_only_areas():
    content = coco_content(0)
    without(content, 'iscrowd')
    content['annotations'][0]['segmentation'] = [[]]
    assert repair_annotations(content, TRAINED)[1] == {}
    without(content, 'area', 1)
    assert repair_annotations(content, TRAINED)[1] == dict(area=1)


NO_MASKS = [[], None, [[]], [[1, 1, 2, 2]], [[1, 1, 2, 2, 3, 3]], [[], [4, 4, 4, 4, 4, 4]]]


@pytest.mark.parametrize('segmentation', NO_MASKS)
def test_the_box_of_an_object_without_a_mask_counts_and_the_mask_does_not(right, tmp_path, segmentation):
    content = coco_content()
    content['annotations'][0]['segmentation'] = segmentation
    repaired, counts = repair_annotations(content, EVALUATED)
    assert counts == dict(masks=1)
    found = scores(repaired, tmp_path)
    assert {key: value for key, value in found.items() if 'bbox' in key} == {
        key: value for key, value in right.items() if 'bbox' in key
    }
    others = coco_content()
    del others['annotations'][0]
    without_first = scores(others, tmp_path, shifts=[None, *SHIFTS[1:]])
    assert found['coco/segm_mAP'] == without_first['coco/segm_mAP'] != right['coco/segm_mAP']


def test_the_box_of_a_crowd_without_a_mask_is_its_mask(tmp_path):
    content, whole = coco_content(), coco_content()
    content['annotations'][4].update(iscrowd=1, segmentation=[])
    whole['annotations'][4].update(iscrowd=1)
    repaired, counts = repair_annotations(content, EVALUATED)
    assert counts == dict(regions=1)
    assert scores(repaired, tmp_path) == scores(whole, tmp_path)


def test_an_object_without_a_mask_is_ignored_if_the_metric_does_not_know_the_mark():
    content = coco_content()
    content['annotations'][0]['segmentation'] = [[]]
    repaired, counts = repair_annotations(content, EVALUATED._replace(reads_marks=False))
    assert counts == dict(ignored=1)
    assert repaired['annotations'][0]['iscrowd'] == 1
    assert repaired['annotations'][0]['segmentation'] == rectangle(*OBJECTS[0][2:])


def test_predictions_in_ignored_regions_are_not_scored(tmp_path):
    """pycocotools alone would score the object as any other."""
    content, crowd = coco_content(), coco_content()
    content['annotations'][4]['ignore'] = 1
    crowd['annotations'][4]['iscrowd'] = 1
    repaired, counts = repair_annotations(content, EVALUATED)
    assert counts == dict(ignore=1)
    assert scores(repaired, tmp_path) == scores(crowd, tmp_path)
    assert scores(content, tmp_path) != scores(crowd, tmp_path)


def test_an_ignored_region_without_a_box_gets_that_of_its_polygon(tmp_path):
    content, whole = coco_content(), coco_content()
    for one in (content, whole):
        one['annotations'][4]['ignore'] = 1
    for key in ('bbox', 'area', 'iscrowd'):
        del content['annotations'][4][key]
    repaired, counts = repair_annotations(content, EVALUATED)
    assert counts == dict(ignore=1, bbox=1, area=1)
    assert repaired['annotations'][4]['bbox'] == list(OBJECTS[4][2:])
    assert scores(repaired, tmp_path) == scores(repair_annotations(whole, EVALUATED)[0], tmp_path)


@pytest.mark.parametrize('compressed', [False, True])
def test_areas_and_boxes_of_rle(compressed):
    from pycocotools import mask

    content = coco_content()
    box = OBJECTS[1][2:]
    rle = mask.frPyObjects(rectangle(*box), SIZE, SIZE)[0]
    if compressed:
        rle['counts'] = rle['counts'].decode()
    else:
        flat = mask.decode(rle).flatten(order='F').tolist()
        changes = [0, *(k for k in range(1, len(flat)) if flat[k] != flat[k - 1]), len(flat)]
        rle = dict(size=[SIZE, SIZE], counts=[b - a for a, b in zip(changes, changes[1:], strict=False)])
    annotation = content['annotations'][1]
    annotation.update(segmentation=rle, ignore=1)
    del annotation['area'], annotation['bbox']
    repaired, _ = repair_annotations(content, EVALUATED)
    assert repaired['annotations'][1]['area'] == box[2] * box[3]
    assert repaired['annotations'][1]['bbox'] == list(box)
    assert repaired['annotations'][1]['segmentation'] == rle


def test_the_area_is_that_of_the_polygons():
    content = coco_content()
    content['annotations'][0].update(segmentation=[[0, 0, 10, 0, 0, 10], [20, 20, 24, 20, 24, 24, 20, 24]])
    del content['annotations'][0]['area']
    assert repair_annotations(content, TRAINED)[0]['annotations'][0]['area'] == 50 + 16


def test_a_polygon_that_crosses_itself_encloses_something():
    content = coco_content()
    content['annotations'][0]['segmentation'] = [[0, 0, 10, 10, 10, 0, 0, 10]]
    assert repair_annotations(content, EVALUATED)[1] == {}


def test_repairs_are_said_with_their_counts():
    content = coco_content(0)
    without(content, 'iscrowd', 3)
    words = repairs_in_words(repair_annotations(content, EVALUATED)[1])
    assert words == (
        'annotation ids that are 0 or strings (all ids are numbered from 1): 1, '
        'annotations without iscrowd (taken as 0): 3'
    )


@pytest.mark.parametrize('classes, labels', [(('bag',), (1,)), (('bag', 'coat'), (2, 7))])
def test_predictions_of_classes_that_the_data_lack_are_left_out(tmp_path, classes, labels):
    """mmdet alone fails on them with an IndexError."""
    content = coco_content()
    plain = scores(content, tmp_path, classes=classes, classwise=True)
    more = [(1, label, (2, 2, 30, 30)) for label in labels]
    assert scores(content, tmp_path, more, classes=classes, classwise=True) == plain


def test_runs_of_compressed_rle_are_those_of_pycocotools():
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for threshold in (0, 0.02, 0.5, 0.98, 1):
        values = (rng.random((37, 53)) < threshold).astype(np.uint8)
        rle = mask.encode(np.asfortranarray(values))
        rle['counts'] = rle['counts'].decode()
        image = dict(height=37, width=53)
        assert mask_fault(rle, image) == ''
        assert mask_area(rle) == values.sum()
        assert 'an RLE of' in mask_fault(dict(rle, counts=rle['counts'] + '1'), image)
