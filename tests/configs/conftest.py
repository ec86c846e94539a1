# Copyright (c) addp_mm contributors. Apache-2.0.
"""A FashionScenes of a few pictures, written once."""
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def small_scenes(tmp_path_factory) -> Path:
    """Root of 4 training and 2 validation scenes of 64 px, and 10 of one garment in each split."""
    from addp_mm.datasets.scene_writer import SceneSetSpec, write_fashion_scenes
    root = tmp_path_factory.mktemp('data') / 'fashion_scenes'
    write_fashion_scenes(root, SceneSetSpec(image_size=64, train=4, val=2, objects_train=10, objects_val=10))
    return root
