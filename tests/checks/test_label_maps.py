# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images and label maps of segmentation are checked before anything is built."""

import shutil

import numpy as np
import pytest
from helpers.checked_data import dataset_cfg, refused
from PIL import Image

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.dataset_cfg import default_of
from addp_mm.checks.datasets import check_dataset_cfg


def test_label_maps_must_exist(own_set):
    (own_set / 'labels/train/000004.png').unlink()
    refused(dataset_cfg('seg', own_set), own_set / 'labels/train', "'000004.png'")
    shutil.rmtree(own_set / 'labels/train')
    refused(dataset_cfg('seg', own_set), own_set / 'labels/train', 'does not exist')


def test_a_label_without_a_class_is_refused(own_set):
    cfg = dataset_cfg('seg', own_set)
    cfg.metainfo = dict(classes=cfg.metainfo.classes[:3])
    refused(cfg, 'labels/train', '3 classes', 'reduce_zero_label=True')
    cfg.metainfo = {}
    refused(cfg, 'no classes', 'metainfo')


def test_a_damaged_label_map_is_named(own_set):
    path = own_set / 'labels/train/000003.png'
    path.write_bytes(path.read_bytes()[:60])
    refused(dataset_cfg('seg', own_set), path, 'label map')


def segmentation(root, cfg, count, image_end, map_end):
    """Write images, and label maps of the values 0 to 2; return the config and both lists."""
    pairs = []
    for folder, end, shape in (('images', image_end, (8, 8, 3)), ('maps', map_end, (8, 8))):
        (root / folder / 'town').mkdir(parents=True)
        paths = [root / folder / f'town/{index:03d}{end}' for index in range(count)]
        values = np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)
        for path in paths:
            Image.fromarray(values).save(path)
        pairs.append(paths)
    cfg = dict(cfg, data_root=str(root), data_prefix=dict(img_path='images', seg_map_path='maps'))
    return cfg, *pairs


@pytest.mark.parametrize('content', [lambda whole: whole[: len(whole) // 2], lambda whole: b''])
def test_a_damaged_label_map_is_found_among_many(tmp_path, content):
    cfg = dict(type='BaseSegDataset', img_suffix='.png', metainfo=dict(classes=['a', 'b', 'c']))
    cfg, _, maps = segmentation(tmp_path, cfg, 150, '.png', '.png')
    check_dataset_cfg(cfg)
    maps[1].write_bytes(content(maps[1].read_bytes()))
    refused(cfg, maps[1], 'the label map cannot be read', 'Replace')


THREE = dict(type='BaseSegDataset', img_suffix='.png', metainfo=dict(classes=['a', 'b', 'c']))


def test_a_label_map_of_another_size_than_its_image_is_refused(tmp_path):
    cfg, images, maps = segmentation(tmp_path, THREE, 3, '.png', '.png')
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(maps[1])
    refused(cfg, maps[1], 'is 8 wide and 4 high', f'{images[1]} is 8 wide and 8 high')


def test_a_label_map_of_colours_is_refused(tmp_path):
    cfg, _, maps = segmentation(tmp_path, THREE, 3, '.png', '.png')
    palette = Image.fromarray(np.zeros((8, 8), np.uint8)).convert('P')
    palette.save(maps[1])
    check_dataset_cfg(cfg)
    palette.convert('RGB').save(maps[1])
    refused(cfg, maps[1], 'the channels R, G, B')


def test_images_that_mmseg_leaves_out_by_their_suffix_are_named(tmp_path):
    cfg, images, _ = segmentation(tmp_path, THREE, 3, '.png', '.png')
    images[1].rename(images[1].with_suffix('.PNG'))
    refused(cfg, tmp_path / 'images', '1 of 3', "'town/001.PNG'", 'Rename them, or set img_suffix')
    for image in images[::2]:
        image.rename(image.with_suffix('.PNG'))
    refused(cfg, '3 of 3', 'set img_suffix')
    check_dataset_cfg(dict(cfg, img_suffix='.PNG'))


STOCK = [('ADE20KDataset', '.jpg', '.png'), ('CityscapesDataset', '_leftImg8bit.png', '_gtFine_labelTrainIds.png')]


@pytest.mark.parametrize('name, image_end, map_end', STOCK)
def test_a_class_with_its_own_suffixes_is_checked_in_pairs(tmp_path, name, image_end, map_end):
    cfg, images, maps = segmentation(tmp_path, dict(type=name), 5, image_end, map_end)
    check_dataset_cfg(cfg)
    maps[3].unlink()
    refused(cfg, tmp_path / 'maps', '1 of 5 label maps', f"'town/003{map_end}'")
    images[3].unlink()
    check_dataset_cfg(cfg)


@pytest.mark.parametrize('name, image_end, map_end', STOCK)
def test_images_that_a_split_file_names_must_exist(tmp_path, name, image_end, map_end):
    cfg, images, maps = segmentation(tmp_path, dict(type=name, ann_file='split.txt'), 5, image_end, map_end)
    (tmp_path / 'split.txt').write_text('town/000\ntown/002\n')
    maps[1].unlink()
    check_dataset_cfg(cfg)
    images[2].write_bytes(b'')
    refused(cfg, images[2], 'cannot be read')
    images[2].unlink()
    refused(cfg, 'split.txt', '1 of its 2 images', f"'town/002{image_end}'", 'img_suffix')
    (tmp_path / 'split.txt').write_text('')
    refused(cfg, 'split.txt', 'empty')


def test_some_classes_of_a_stock_dataset_pass(tmp_path):
    """mmseg ignores the labels of the other classes."""
    cfg, *_ = segmentation(tmp_path, dict(type='CityscapesDataset'), 2, *STOCK[1][1:])
    check_dataset_cfg(dict(cfg, metainfo=dict(classes=['road'])))


class Plain:
    def __init__(self, suffix='.jpg', **others):
        pass


class Fixed(Plain):
    def __init__(self, **others):
        super().__init__(suffix='.tif', **others)


class Handing(Plain):
    def __init__(self, **others):
        super().__init__(**others)


def test_defaults_of_a_class_that_takes_keyword_arguments_are_unknown():
    assert [default_of(cls, 'suffix') for cls in (Plain, Handing, Fixed, None)] == ['.jpg', None, None, None]


@pytest.mark.slow
def test_defaults_of_stock_datasets_are_those_of_their_objects():
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    names = ('img_suffix', 'seg_map_suffix', 'reduce_zero_label')
    read = 0
    for cls in DATASETS.module_dict.values():
        if not issubclass(cls, BaseSegDataset) or cls.load_data_list is not BaseSegDataset.load_data_list:
            continue
        try:
            dataset = cls(ann_file='', data_prefix=dict(img_path='', seg_map_path=''), lazy_init=True)
        except (AssertionError, FileNotFoundError, TypeError):
            continue  # its constructor looks for its files
        expected = {name: getattr(dataset, name) for name in names}
        assert {name: default_of(cls, name) for name in names} == expected, cls
        read += 1
    assert read >= 10
