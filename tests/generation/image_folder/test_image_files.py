# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
from PIL import Image, features

from addp_mm.generation.image_folder import FORMATS, ImageFiles


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize('kind', FORMATS)
def test_files_are_lossless_and_only_missing_ones_are_named(tmp_path, kind):
    files = ImageFiles(tmp_path, kind)
    for index in (0, 2):
        files.write(index, pixels(index))
    assert (files.read(2) == pixels(2)).all()
    assert files.missing(4) == [1, 3]
    assert files.count() == 2
    with Image.open(files.path(0)) as image:
        assert image.format == FORMATS[kind]['format']


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('content', [lambda good: good[: len(good) // 2], lambda good: b'', lambda good: b'no image'])
def test_damaged_files_and_temporary_ones_are_removed(tmp_path, kind, content):
    files = ImageFiles(tmp_path, kind)
    files.write(0, pixels())
    files.path(0).write_bytes(content(files.path(0).read_bytes()))
    (tmp_path / f'.000001.{kind}.0123.partial').write_bytes(b'half')
    assert files.missing(2) == [0, 1]
    assert not list(tmp_path.iterdir())


def test_pillow_without_webp_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(features, 'check', lambda name: False)
    with pytest.raises(ValueError, match='--format webp: this Pillow'):
        ImageFiles(tmp_path, 'webp')
