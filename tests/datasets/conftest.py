# Copyright (c) addp_mm contributors. Apache-2.0.
import shutil

import pytest

from addp_mm.datasets.scene_writer import SceneSetSpec, write_fashion_scenes

SPEC = SceneSetSpec(image_size=64, train=12, val=6, objects_train=20, objects_val=10, seed=3)


@pytest.fixture(scope='session')
def written_set(tmp_path_factory):
    """A small FashionScenes that no test may change."""
    out = tmp_path_factory.mktemp('data') / 'fashion_scenes'
    assert write_fashion_scenes(out, SPEC)
    return out


@pytest.fixture
def own_set(written_set, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(written_set, tmp_path / 'fashion_scenes')
