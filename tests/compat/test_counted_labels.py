# Copyright (c) addp_mm contributors. Apache-2.0.
"""Labels of a crop are counted as numpy counts them."""

import importlib
import random

import numpy as np
import pytest
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401

MODULE = 'mmseg.datasets.transforms.transforms'


@pytest.mark.parametrize('options', [{}, dict(return_counts=True), dict(return_counts=False), dict(return_index=True)])
@pytest.mark.parametrize(
    'labels',
    [
        np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8),
        np.random.default_rng(1).integers(3, 9, (40, 60), dtype=np.uint8)[3:30, 7:50],
        np.full((5, 5), 255, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.random.default_rng(2).integers(-3, 300, (9, 9)),
    ],
    ids=['all', 'crop', 'ignored', 'empty', 'int64'],
)
def test_counts_equal_numpys(labels, options):
    expected = np.unique(labels, **options)
    found = importlib.import_module(MODULE).np.unique(labels, **options)
    both = [one if isinstance(one, tuple) else (one,) for one in (expected, found)]
    assert [one.dtype for one in both[0]] == [one.dtype for one in both[1]]
    for first, second in zip(*both, strict=True):
        np.testing.assert_array_equal(first, second)


def test_random_crop_takes_the_same_crops(monkeypatch):
    module = importlib.import_module(MODULE)
    labels = np.kron(np.random.default_rng(0).integers(0, 6, (4, 6)), np.ones((16, 16), int)).astype(np.uint8)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with DefaultScope.overwrite_default_scope('mmseg'):
        crop = module.RandomCrop((32, 32), cat_max_ratio=0.5, ignore_index=5)

    def crops():
        np.random.seed(0)  # noqa: NPY002  # mmsegmentation draws from it
        random.seed(0)
        return [crop(dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map'])) for _ in range(20)]

    fast = crops()
    monkeypatch.setattr(module, 'np', np)
    for first, second in zip(fast, crops(), strict=True):
        np.testing.assert_array_equal(first['img'], second['img'])
        np.testing.assert_array_equal(first['gt_seg_map'], second['gt_seg_map'])
