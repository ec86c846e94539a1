# Copyright (c) addp_mm contributors. Apache-2.0.
"""The checks read images in the same way as the loader of the pipeline."""

import numpy as np
import pytest
from helpers.checked_data import refused
from PIL import Image

from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.datasets import LoadImage, LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import upright_size

FIVE_BANDS = dict(type='addp_mm.LoadMultiChannelImage', channels=5)
COLOUR = dict(type='addp_mm.LoadImage')
UNKNOWN = dict(type='LoadSentinel')


def write_bands(path, channels=5, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((*size, channels), np.uint16))


def segmentation(root, loader):
    for index in range(3):
        write_bands(root / f'images/{index}.npy')
        (root / 'maps').mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 10), np.uint8)).save(root / f'maps/{index}.png')
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        img_suffix='.npy',
        metainfo=dict(classes=['a', 'b']),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        pipeline=[loader],
    )


def class_folders(root, loader):
    for name in 'ab':
        write_bands(root / name / '0.npy')
    return dict(
        type='CustomDataset',
        data_root=str(root),
        extensions=['.npy'],
        metainfo=dict(classes=['a', 'b']),
        pipeline=[dict(type='RandomApply', transforms=[loader])],
    )


def listed(root, loader):
    (root / 'list.txt').write_text('a/0.npy 0\n')
    return dict(class_folders(root, loader), ann_file='list.txt')


@pytest.mark.parametrize(
    'write, broken', [(segmentation, 'images/1.npy'), (class_folders, 'a/0.npy'), (listed, 'a/0.npy')]
)
def test_images_are_read_as_the_first_loader_does(tmp_path, write, broken):
    cfg = write(tmp_path, FIVE_BANDS)
    check_dataset_cfg(cfg)
    check_dataset_cfg(write(tmp_path, dict(FIVE_BANDS, type=LoadMultiChannelImage)))
    refused(write(tmp_path, COLOUR), broken, 'cannot be read')
    check_dataset_cfg(write(tmp_path, UNKNOWN))
    write_bands(tmp_path / broken, 4)
    refused(cfg, tmp_path / broken, '4 channels found, 5 expected', 'set channels')


def test_files_of_an_unknown_loader_must_not_be_empty(tmp_path):
    cfg = class_folders(tmp_path, UNKNOWN)
    (tmp_path / 'b/0.npy').write_bytes(b'')
    refused(cfg, tmp_path / 'b/0.npy', 'an empty file')


@pytest.mark.parametrize('option', [dict(imdecode_backend='tifffile'), dict(color_type='unchanged')])
def test_the_stock_loader_makes_colours_unless_an_option_says_otherwise(tmp_path, option):
    stock = dict(type='LoadImageFromFile')
    refused(class_folders(tmp_path, stock), 'cannot be read')
    check_dataset_cfg(class_folders(tmp_path, dict(stock, **option)))


@pytest.mark.parametrize('end', ['.png', '.jpg', '.tif', '.webp', '.npy'])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_the_size_in_the_header_is_that_of_the_loaded_image(tmp_path, end, orientation):
    path = tmp_path / f'a{end}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    if end == '.npy':
        write_bands(path, 1)
    else:
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path, exif=exif)
    loader = LoadMultiChannelImage(1) if end == '.npy' else LoadImage()
    assert upright_size(path) == loader(dict(img_path=str(path)))['img_shape']


def test_a_damaged_header_has_no_size(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'text')
    np.save(tmp_path / 'a.npy', np.zeros(3))
    assert upright_size(tmp_path / 'a.png') is None
    assert upright_size(tmp_path / 'a.npy') is None


def test_the_size_is_read_without_decoding(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(path)
    monkeypatch.setattr(Image.Image, 'load', None)
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', None)
    assert upright_size(path) == (8, 10)


@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_label_maps_are_compared_with_the_size_of_tiffs_of_five_bands(tmp_path, planar):
    tifffile = pytest.importorskip('tifffile')
    cfg = dict(segmentation(tmp_path, FIVE_BANDS), img_suffix='.tif')
    rotated = [(274, 'H', 1, 6, True)]
    for index in range(3):
        bands = np.zeros((10, 8, 5) if planar == 'contig' else (5, 10, 8), np.uint16)
        tifffile.imwrite(
            tmp_path / f'images/{index}.tif', bands, photometric='minisblack', planarconfig=planar, extratags=rotated
        )
    check_dataset_cfg(cfg)
    Image.fromarray(np.zeros((10, 8), np.uint8)).save(tmp_path / 'maps/1.png')
    refused(cfg, tmp_path / 'maps/1.png', 'is 8 wide and 10 high', f'{tmp_path / "images/1.tif"} is 10 wide and 8 high')
