# Copyright (c) addp_mm contributors. Apache-2.0.
"""Packages that are imported only when they are needed, present and missing."""

from types import ModuleType

import numpy as np
import pytest
from helpers.modules import module_with

from addp_mm.compat import optional_packages
from addp_mm.compat.optional_packages import MissingPackageError, patch_class_without_package, patch_nifti
from addp_mm.compat.versions import installed_version


def test_nifti_names_the_missing_package(monkeypatch):
    import gzip
    import io

    from mmseg.utils import datafrombytes

    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    assert datafrombytes(buffer.getvalue(), backend='numpy').tolist() == [0, 1, 2]
    if installed_version('nibabel') is None:
        with pytest.raises(MissingPackageError, match='pip install nibabel'):
            datafrombytes(gzip.compress(b'image'), backend='nifti')
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: name)
    module = module_with(datafrombytes=datafrombytes)
    assert not patch_nifti(module)
    assert module.datafrombytes is datafrombytes


@pytest.mark.parametrize(
    'module, name, package',
    [
        ('mmseg.models.decode_heads.mask2former_head', 'Mask2FormerHead', 'mmdet'),
        ('mmseg.models.decode_heads.maskformer_head', 'MaskFormerHead', 'mmdet'),
        ('mmseg.apis.remote_sense_inferencer', 'RSImage', 'osgeo'),
    ],
)
def test_a_class_without_its_package_names_it(monkeypatch, module, name, package):
    import importlib

    real = importlib.import_module(module)
    standin = ModuleType(module)
    setattr(standin, name, type(name, (), {'__init__': getattr(real, name).__init__}))
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: name)
    assert not patch_class_without_package(standin)
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: None)
    assert patch_class_without_package(standin)
    with pytest.raises(MissingPackageError, match=f'{name} needs {package}, which is not installed: .* install'):
        getattr(standin, name)('image.tif', feat_channels=8)


def panoptic_scene():
    """The ids of three segments on 10 x 10 pixels, and their records."""
    ids = np.full((10, 10), 6, np.int32)
    ids[:5], ids[5:, :5] = 10001, 11004
    records = [dict(id=10001, category=0, is_thing=True), dict(id=11004, category=1, is_thing=True)]
    return ids, [*records, dict(id=6, category=2, is_thing=False)]


@pytest.mark.parametrize('apart', [False, True])
def test_panoptic_annotations_load(monkeypatch, tmp_path, apart):
    """With a module ``panopticapi.utils`` that is, or is not, the attribute of its package."""
    import sys

    import cv2
    from mmdet.datasets.transforms import LoadPanopticAnnotations

    def rgb2id(colours):
        return colours.astype(np.int32) @ np.array([1, 256, 256**2])

    package, utils = ModuleType('panopticapi'), module_with(rgb2id=rgb2id)
    package.utils = module_with(rgb2id=lambda colours: None) if apart else utils
    monkeypatch.setitem(sys.modules, 'panopticapi', package)
    monkeypatch.setitem(sys.modules, 'panopticapi.utils', utils)
    ids, records = panoptic_scene()
    path = str(tmp_path / 'ids.png')
    cv2.imwrite(path, np.stack([ids // 256**2, ids // 256 % 256, ids % 256], -1).astype(np.uint8))
    transform = LoadPanopticAnnotations(with_bbox=False, with_label=False)
    loaded = transform(dict(ori_shape=(10, 10), seg_map_path=path, segments_info=records))
    expected = np.zeros((10, 10), int)
    for record in records:
        expected[ids == record['id']] = record['category']
    assert (loaded['gt_seg_map'] == expected).all()
    assert (loaded['gt_masks'].masks == np.stack([ids == 10001, ids == 11004])).all()
