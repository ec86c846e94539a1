# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/pretrain_from_folder.py inspects the images."""

import numpy as np
import pytest
from helpers.own_image_files import pack, write_images
from PIL import Image


def found_in(folder, tmp_path, channels=None, value_range=None):
    from addp_mm.own_data.images import dataset_cfg, find_images

    return find_images(dataset_cfg(str(folder), tmp_path / 'images.index', 0.01), channels, value_range, 'error')


@pytest.mark.parametrize('channels, kind', [(1, 'png'), (3, 'png'), (5, 'npy')])
def test_channels_are_found(tmp_path, channels, kind):
    found = found_in(write_images(tmp_path / 'images', channels), tmp_path)
    assert (found.count, found.channels, found.shortest, found.val_every) == (24, channels, 40, 4)
    assert found.train_count == 18
    assert len(found.mean) == channels
    stored = (
        np.stack(
            [
                np.load(p) if kind == 'npy' else np.asarray(Image.open(p)).reshape(40, 48, -1)
                for p in sorted((tmp_path / 'images').glob(f'*.{kind}'))
            ]
        )
        / 255
    )
    assert found.mean == pytest.approx(stored.mean((0, 1, 2)).tolist(), abs=1e-3)
    assert found.std == pytest.approx(stored.std((0, 1, 2)).tolist(), abs=2e-3)


def test_grey_and_colour_together_are_colour_and_other_mixtures_are_refused(tmp_path):
    from addp_mm.datasets import DatasetError

    folder = write_images(tmp_path / 'images', 3)
    Image.new('L', (50, 50)).save(folder / 'grey.png')
    Image.new('RGBA', (50, 50)).save(folder / 'transparent.png')
    assert found_in(folder, tmp_path / 'a').channels == 3
    np.save(folder / 'bands.npy', np.zeros((50, 50, 7), np.uint8))
    with pytest.raises(DatasetError, match=r'3 \(25 images.*; 7 \(1 images.*bands.npy\). Give --channels'):
        found_in(folder, tmp_path / 'b')


def test_floats_need_a_range(tmp_path):
    from addp_mm.datasets import DatasetError

    (tmp_path / 'images').mkdir()
    for index in range(5):
        np.save(tmp_path / 'images' / f'{index}.npy', np.full((40, 40), 3.0 * index, np.float32))
    with pytest.raises(DatasetError, match='from 0 to 0.*Give the values of black and white as --value-range LOW HIGH'):
        found_in(tmp_path / 'images', tmp_path)
    found = found_in(tmp_path / 'images', tmp_path, value_range=(0, 12))
    assert found.channels == 1
    assert found.mean == [0.5]


def test_shards_are_inspected_like_folders(tmp_path):
    folder = write_images(tmp_path / 'images', 3)
    shards = found_in(pack(folder, tmp_path / 'shards') / '*.tar', tmp_path / 'a')
    files = found_in(folder, tmp_path / 'b')
    assert shards.dataset['type'] == 'addp_mm.WebDatasetImages'
    assert (shards.count, shards.channels, shards.mean) == (files.count, files.channels, files.mean)


def test_broken_images_and_those_of_a_missing_shard_are_named(tmp_path, monkeypatch):
    from addp_mm.own_data.images import find_images

    folder = write_images(tmp_path / 'images', 3)
    assert found_in(folder, tmp_path / 'a').broken == []
    broken = sorted(folder.glob('*.png'))[5]
    broken.write_bytes(b'no image')
    (found,) = found_in(folder, tmp_path / 'a').broken
    assert found.startswith(f'{broken} (not an image')
    shards = pack(write_images(tmp_path / 'whole', 3), tmp_path / 'shards')
    listed = found_in(shards / '*.tar', tmp_path / 'b')
    assert not listed.broken
    gone = sorted(shards.glob('*.tar'))[0]
    gone.unlink()
    found = find_images(dict(listed.dataset, shards=str(shards)), None, None, 'keep')
    assert (found.count, found.broken) == (24, [])
    # as if it was removed during the inspection
    monkeypatch.setattr('addp_mm.datasets.WebDatasetImages._ensure_list', lambda self: None)
    found = find_images(listed.dataset, None, None, 'error')
    assert len(found.broken) == 12
    assert all(str(gone) in name for name in found.broken)


def test_kinds_of_sources_are_recognised(tmp_path):
    from addp_mm.own_data.images import dataset_cfg

    (tmp_path / 'packed').mkdir()
    (tmp_path / 'packed/0.tar.gz').write_bytes(b'')
    for name, kind in {
        'a.lmdb': 'LMDBImages',
        'shards/*.tar': 'WebDatasetImages',
        'photos': 'ImageFiles',
        'packed': 'WebDatasetImages',
        'packed/0.tar.gz': 'WebDatasetImages',
    }.items():
        assert dataset_cfg(str(tmp_path / name), tmp_path / 'index', 0.1)['type'] == f'addp_mm.{kind}'


@pytest.mark.parametrize('extra, channels', [('unspecified', 4), ('unassalpha', 3)])
def test_near_infrared_is_a_channel_and_alpha_is_not(tmp_path, extra, channels):
    tifffile = pytest.importorskip('tifffile')
    from addp_mm.own_data.images import warnings

    (tmp_path / 'images').mkdir()
    for index in range(4):
        tifffile.imwrite(
            tmp_path / f'images/{index}.tif',
            np.full((40, 40, 4), (51, 102, 153, 204), np.uint8),
            photometric='rgb',
            extrasamples=[extra],
        )
    found = found_in(tmp_path / 'images', tmp_path / 'a')
    assert found.channels == channels
    # An opacity of 80 % leaves a fifth of the white background.
    assert found.mean == pytest.approx([0.2, 0.4, 0.6, 0.8] if channels == 4 else [0.36, 0.52, 0.68], abs=3e-3)
    assert any('4 channels, and the models have' in line for line in warnings(found, 32, 'nano')) == (channels == 3)
    # With --channels there is still a warning about dropped channels, and no other warning.
    other = found_in(tmp_path / 'images', tmp_path / 'b', channels=7 - channels)
    assert other.mean == pytest.approx([0.2, 0.4, 0.6, 0.8][: 7 - channels], abs=3e-3)
    assert other.most_stored == (4 if channels == 4 else 0)
