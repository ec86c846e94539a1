# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fixtures: small FashionScenes, and IDX files."""

import gzip
import shutil
import struct

import numpy as np
import pytest

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, Garments, load_garments
from addp_mm.datasets.fashion.scene_writer import SceneSetSpec, write_fashion_scenes

# Fashion-MNIST's own order of the labels 0 to 9.
IDX_ORDER = ['t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot']


def few_garments(split, per_class):
    """The first garments of each class of the shipped subset, sorted by class."""
    garments = load_garments(split)
    index = np.concatenate([np.flatnonzero(garments.labels == label)[:per_class] for label in range(len(CLASSES))])
    return Garments(garments.images[index], garments.labels[index])


@pytest.fixture(scope='session')
def spec():
    return SceneSetSpec(image_size=64, train=12, val=6, objects_train=20, objects_val=10, seed=3)


@pytest.fixture(scope='session')
def written_set(tmp_path_factory, spec):
    """A small FashionScenes that tests must not change."""
    out = tmp_path_factory.mktemp('data') / 'fashion_scenes'
    assert write_fashion_scenes(out, spec)
    return out


@pytest.fixture
def own_set(written_set, tmp_path):
    """A copy that a test can change."""
    return shutil.copytree(written_set, tmp_path / 'fashion_scenes')


def _write_idx(path, values, compress=False):
    content = struct.pack('>I', 0x0800 + values.ndim) + struct.pack(f'>{values.ndim}I', *values.shape)
    content += values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture
def write_idx():
    """Write an array of bytes as an IDX file."""
    return _write_idx


@pytest.fixture
def write_source():
    """Write garments as Fashion-MNIST's files."""

    def write(folder, garments, compress=False, prefix='train'):
        folder.mkdir(parents=True, exist_ok=True)
        end = '.gz' if compress else ''
        labels = np.array([IDX_ORDER.index(CLASSES[label]) for label in garments.labels])
        _write_idx(folder / f'{prefix}-images-idx3-ubyte{end}', garments.images, compress)
        _write_idx(folder / f'{prefix}-labels-idx1-ubyte{end}', labels, compress)

    return write


@pytest.fixture(scope='session')
def small_scenes(tmp_path_factory):
    """Root of 4 training and 2 validation scenes of 64 px, and 10 of one garment in each split."""
    root = tmp_path_factory.mktemp('data') / 'fashion_scenes'
    write_fashion_scenes(root, SceneSetSpec(image_size=64, train=4, val=2, objects_train=10, objects_val=10))
    return root
