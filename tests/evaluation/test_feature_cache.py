# Copyright (c) addp_mm contributors. Apache-2.0.
import json

import numpy as np
import pytest
import torch
from helpers.image_sets import ColourFeatures, pixels, write_folder

from addp_mm.evaluation import StatisticsError, open_images
from addp_mm.evaluation.feature_cache import CachedFeatures


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr('addp_mm.evaluation.feature_cache.PART', 4)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr('addp_mm.evaluation.feature_cache.print_log', lambda words, **_: lines.append(words))
    return lines


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'images', pixels(10))


def features(folder, cache, extractor=None, img_size=None):
    """Features of all images, and the number of images for which they were computed."""
    extractor = extractor or ColourFeatures()
    before = extractor.seen
    cached = CachedFeatures(open_images(folder, img_size), extractor, cache, batch_size=3)
    cached.prepare()
    return torch.cat(list(cached)), extractor.seen - before


def entry(cache):
    (found,) = cache.iterdir()
    return found


def test_features_are_read_again(folder, tmp_path, said):
    direct, _ = features(folder, None)
    assert torch.equal(direct, ColourFeatures()(torch.from_numpy(pixels(10)).permute(0, 3, 1, 2)))
    first, computed = features(folder, tmp_path / 'cache')
    again, computed_again = features(folder, tmp_path / 'cache')
    assert (computed, computed_again, said) == (10, 0, [])
    assert torch.equal(first, direct)
    assert torch.equal(again, direct)
    assert sorted(path.name for path in entry(tmp_path / 'cache').iterdir()) == [
        'about.json',
        *(f'features_0000{index}.npz' for index in range(3)),
    ]


def test_another_extractor_or_size_is_another_entry(folder, tmp_path):
    features(folder, tmp_path / 'cache')
    other = ColourFeatures()
    other.fingerprint = 'other weights'
    assert features(folder, tmp_path / 'cache', other)[1] == 10
    assert features(folder, tmp_path / 'cache', img_size=4)[1] == 10
    assert len(list((tmp_path / 'cache').iterdir())) == 3


def test_an_interrupted_computation_goes_on_after_its_last_part(folder, tmp_path):
    class Stopping(ColourFeatures):
        def forward(self, images):
            if self.seen >= 6:
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(KeyboardInterrupt):
        features(folder, tmp_path / 'cache', Stopping())
    assert [path.name for path in entry(tmp_path / 'cache').glob('*.npz')] == ['features_00000.npz']
    found, computed = features(folder, tmp_path / 'cache')
    assert computed == 6
    assert torch.equal(found, features(folder, None)[0])


def test_a_changed_folder_is_noticed(folder, tmp_path, said):
    features(folder, tmp_path / 'cache')
    write_folder(folder, pixels(11, seed=3))
    found, computed = features(folder, tmp_path / 'cache')
    assert (len(found), computed) == (11, 11)
    assert said == [f'{folder} has changed: its features are computed again']
    assert features(folder, tmp_path / 'cache')[1] == 0


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 broken', 'flipped', 'of fewer images', 'NaN'])
def test_a_damaged_part_is_computed_again_with_a_word(folder, tmp_path, said, content):
    expected, _ = features(folder, tmp_path / 'cache')
    part = entry(tmp_path / 'cache') / 'features_00001.npz'
    if content == 'of fewer images':
        np.savez(part, features=np.zeros((2, 6), np.float32))
    elif content == 'NaN':
        np.savez(part, features=np.full((4, 6), np.nan, np.float32))
    elif content == 'flipped':
        whole = bytearray(part.read_bytes())
        whole[200] ^= 1  # a byte of the features: only the archive's checksum shows it
        part.write_bytes(whole)
    else:
        part.write_bytes(content)
    found, computed = features(folder, tmp_path / 'cache')
    assert computed == 4
    assert torch.equal(found, expected)
    assert len(said) == 1
    assert 'features_00001.npz is damaged' in said[0]
    assert features(folder, tmp_path / 'cache')[1] == 0


def test_a_damaged_description_is_written_again(folder, tmp_path):
    features(folder, tmp_path / 'cache')
    about = entry(tmp_path / 'cache') / 'about.json'
    about.write_text('{')
    assert features(folder, tmp_path / 'cache')[1] == 10
    assert json.loads(about.read_text())['count'] == 10


def test_without_a_writable_folder_nothing_is_kept(folder, tmp_path, said):
    (tmp_path / 'file').touch()
    found, computed = features(folder, tmp_path / 'file')
    assert (len(found), computed) == (10, 10)
    assert 'features cannot be kept in' in said[0]
    assert '--cache-dir' in said[0]


def test_features_that_are_not_finite_are_refused(folder, tmp_path):
    class Broken(ColourFeatures):
        def forward(self, images):
            return super().forward(images) * torch.nan

    with pytest.raises(StatisticsError, match=r'features of inception-v3 are not finite \(NaN or Inf\)'):
        features(folder, tmp_path / 'cache', Broken())
    assert not list(entry(tmp_path / 'cache').glob('*.npz'))


def test_a_network_of_a_fixed_size_names_the_remedy(folder):
    class Fixed(ColourFeatures):
        def forward(self, images):
            raise AssertionError('Input height (8) does not match model (224)')

    with pytest.raises(StatisticsError, match=r'images, 8x8 px: Input height \(8\).*Give the size of the network'):
        features(folder, None, Fixed())
