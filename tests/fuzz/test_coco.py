# Copyright (c) addp_mm contributors. Apache-2.0.
"""COCO files: what is repaired stays repaired, masks have the areas that they are drawn with."""

import copy
import json
import re

import numpy as np
import pytest
from helpers.refusals import refusal
from helpers.strategies import coco_contents, polygons, run_lengths
from hypothesis import assume, given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from addp_mm.analysis.coco_file import read_coco_file
from addp_mm.checks.coco import check_metric_file
from addp_mm.checks.coco_masks import mask_area, mask_box, mask_fault, usable_polygons
from addp_mm.checks.coco_reading import write_coco
from addp_mm.checks.coco_use import CocoUse

uses = st.builds(CocoUse, st.booleans(), st.booleans(), st.booleans(), st.booleans())
#: What a writer may get wrong in a record.
faults = st.sampled_from(
    [None, True, '', 'x', -1, 0.5, 1e300, 10**400, float('nan'), float('inf'), [], [[]], {}, [1, 'x']]
)


def stored(folder, content):
    path = folder / 'annotations.json'
    path.write_text(json.dumps(content))
    return path


@given(coco_contents(), uses)
def test_repairing_a_repaired_file_changes_nothing(tmp_path, content, use):
    path, repaired = stored(tmp_path, content), tmp_path / 'repaired.json'
    refused = refusal(check_metric_file, path, use)
    if refused:
        assert re.search('no object has a mask|between 0 and 1', refused)
        return
    file = check_metric_file(path, use)
    if file.content is None:
        return
    write_coco(repaired, file.content)
    refused = refusal(check_metric_file, repaired, use)
    if refused:
        assert 'between 0 and 1' in refused  # the polygons of all boxes are that small
        return
    again = check_metric_file(repaired, use)
    assert again.content is None, again.repairs
    # nothing is lost
    new = json.loads(repaired.read_text())
    for before, after in zip(content.pop('annotations'), new.pop('annotations'), strict=True):
        assert before.keys() <= after.keys()
    assert new == content


@given(st.data(), coco_contents(), uses)
def test_any_value_in_a_record_is_taken_or_refused(tmp_path, data, content, use):
    section = data.draw(st.sampled_from(['images', 'categories', 'annotations']))
    assume(content[section])
    record = data.draw(st.sampled_from(content[section]))
    record[data.draw(st.sampled_from([*record, 'area', 'segmentation', 'iscrowd']))] = data.draw(faults)
    path = stored(tmp_path, content)
    refused = refusal(check_metric_file, path, use)
    assert not refused or str(path) in refused
    read_coco_file(path, num_samples=2)


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_areas_and_boxes_of_run_lengths(data, height, width):
    counts = data.draw(run_lengths(height, width))
    rle = dict(size=[height, width], counts=counts)
    image = dict(height=height, width=width)
    packed = coco_mask.frPyObjects(copy.deepcopy(rle), height, width)
    text = dict(size=[height, width], counts=packed['counts'].decode())
    pixels = coco_mask.decode(packed)
    for one in (rle, text):
        assert mask_fault(one, image) == ''
        assert mask_area(one) == pixels.sum()
        box = mask_box(one)
        ys, xs = np.nonzero(pixels)
        expected = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1] if len(xs) else [0, 0, 0, 0]
        assert box == expected
    assert mask_fault(dict(rle, counts=[*counts, 1]), image)
    assert mask_fault(dict(text, counts=text['counts'] + '1'), image)


@given(st.lists(polygons(9, 9), max_size=3))
def test_usable_polygons_enclose_something(found):
    kept = usable_polygons(found)
    assert usable_polygons(kept) == kept
    if kept is None:
        assert mask_area(found) is None
        return
    left, top, width, height = mask_box(found)
    assert mask_area(found) <= width * height * len(kept)
    assert mask_area(found) == pytest.approx(sum(abs(shoelace(one)) for one in kept))


def shoelace(polygon):
    points = np.array(polygon).reshape(-1, 2)
    following = np.roll(points, -1, 0)
    return float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum() / 2)
