# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stock detectors and segmentors in half precision on the CPU, compared with float32."""

import copy
import re
from pathlib import Path

import pytest
import torch
from helpers.hand_swaps import build
from helpers.precision_table import TOLERANCES, UNSTABLE, cases, differences, predict, read, step
from helpers.tiny_detection import detection_batch

DOC = (Path(__file__).parents[2] / 'docs/compat.md').read_text()
FAST = ('atss', 'segformer', 'fcn')
SOME = ('fcos', 'rtmdet', 'faster-rcnn', 'dino', 'panoptic-fpn', 'upernet', 'mask2former')


@pytest.mark.parametrize(
    'package, name',
    [
        pytest.param(package, name, marks=[] if name in FAST else pytest.mark.slow)
        for package, name in cases().values()
        if name in FAST + SOME
    ],
)
def test_half_precision_is_near_float32(package, name, tmp_path):
    found = differences(package, name, tmp_path)
    checked = {key: limit for key, limit in TOLERANCES.items() if key != 'gradients' or name not in UNSTABLE}
    assert {key: found[key] for key, limit in checked.items() if not found[key] < limit} == {}
    assert found['bfloat16'] > 0  # it was computed in another precision


def test_the_tolerances_notice_weights_that_differ_by_a_tenth(tmp_path):
    cfg, batch = read('mmseg', 'fcn', tmp_path)
    torch.manual_seed(0)
    exact = build(cfg)
    other = copy.deepcopy(exact)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * parameter.std(unbiased=False) * torch.randn_like(parameter)
    predicted, changed = (predict(cfg, model, batch, 'float32') for model in (exact, other))
    assert predicted.difference(changed) > TOLERANCES['bfloat16']
    (_, gradients), (_, changed) = (step(cfg, model, batch, 'float32') for model in (exact, other))
    assert (changed - gradients).norm() / gradients.norm() > TOLERANCES['gradients']


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', ['fcos', 'atss'])
def test_more_boxes_than_the_threshold_of_batched_nms(name, dtype, tmp_path):
    """194 positions, 80 classes: 15,520 boxes. From 10,000 mmcv treats the classes one by one."""
    cfg, _ = read('mmdet', name, tmp_path)
    cfg.model.test_cfg.update(nms_pre=100000)
    batch = detection_batch(((96, 96),), with_mask=False)
    torch.manual_seed(0)
    model = build(cfg)
    exact, half = (predict(cfg, model, batch, kind) for kind in ('float32', dtype))
    assert exact.difference(half) < TOLERANCES['bfloat16']


def test_the_docs_list_every_config_and_the_tolerances():
    rows = dict(re.findall(r'^\| `(mm\w+::[^`]+)` \| ([\d.]+ % .*) \|$', DOC, re.M))
    assert set(rows) == set(cases())
    for address, (_, name) in cases().items():
        shares = [float(share) / 100 for share in re.findall(r'([\d.]+) %', rows[address])]
        found = dict(zip(('losses', 'gradients', 'rounded', 'bfloat16', 'float16'), shares, strict=True))
        assert all(
            found[key] < limit for key, limit in TOLERANCES.items() if key != 'gradients' or name not in UNSTABLE
        )
    for limit in TOLERANCES.values():
        assert f'{100 * limit:g} %' in DOC
