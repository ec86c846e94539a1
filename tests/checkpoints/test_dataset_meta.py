# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classes in safetensors files: stored as text, read as a Runner stores them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from addp_mm.checkpoints.dataset_meta import classes_as_text
from addp_mm.checkpoints.reading import load_checkpoint_file

WEIGHTS = dict(weight=torch.ones(2))


def read(path, metadata):
    save_file(WEIGHTS, path / 'model.safetensors', metadata=metadata)
    return load_checkpoint_file(path / 'model.safetensors')['meta']


@pytest.mark.parametrize('palette', [[(1, 2, 3), (4, 5, 6)], np.array([[1, 2, 3], [4, 5, 6]]), 'random', None])
def test_classes_and_palette_are_read_back(palette, tmp_path):
    meta = dict(classes=('bag', 'coat'), palette=palette, task_name='other things stay out')
    found = read(tmp_path, {**classes_as_text(dict(meta=dict(dataset_meta=meta))), 'made_by': 'a test'})
    wanted = dict(classes=['bag', 'coat'])
    if palette is not None:
        wanted['palette'] = palette if isinstance(palette, str) else [[1, 2, 3], [4, 5, 6]]
    assert found == dict(dataset_meta=wanted, made_by='a test')


@pytest.mark.parametrize(
    'checkpoint', [{}, dict(meta=None), dict(meta=dict(epoch=1)), dict(meta=dict(dataset_meta=dict(classes=None)))]
)
def test_a_checkpoint_without_classes_stores_none(checkpoint):
    assert classes_as_text(checkpoint) == {}


@pytest.mark.parametrize('text', ['FashionScenes', json.dumps(['bag']), ''])
def test_other_text_under_the_same_name_is_ignored(text, tmp_path):
    assert read(tmp_path, dict(dataset_meta=text, version='1')) == dict(version='1')
    assert read(tmp_path, None) == {}
