# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images and label maps of segmentation are checked before anything is built."""

import os
import shutil

import numpy as np
import pytest
from helpers.checked_data import dataset_cfg, refused
from PIL import Image

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.dataset_cfg import default_of
from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.checks.tolerance import tolerating


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


@pytest.fixture
def said(monkeypatch):
    """Warnings about labels."""
    words = []
    monkeypatch.setattr('addp_mm.checks.label_counts.print_log', lambda text, *_: words.append(text))
    return words


def write_maps(root, cfg, values, classes, **settings):
    """A dataset of three images of 8 x 8 whose label maps hold ``values`` in equal shares."""
    cfg = dict(cfg, metainfo=dict(classes=list(classes)), **settings)
    cfg, _, maps = segmentation(root, cfg, 3, '.png', '.png')
    for path in maps:
        Image.fromarray(np.resize(np.array(values, np.uint8), (8, 8))).save(path)
    return cfg


def test_a_palette_of_another_length_is_refused(tmp_path):
    cfg = write_maps(tmp_path, THREE, [0, 1], 'ab')
    refused(dict(cfg, metainfo=dict(classes=['a', 'b'], palette=[[1, 2, 3]])), '1 colours in palette, but 2 classes')


def test_binary_maps_of_0_and_255_cause_a_warning(tmp_path, said):
    cfg = write_maps(tmp_path, THREE, [0, 255, 0, 0], ['background', 'garment'])
    check_dataset_cfg(cfg)
    assert len(said) == 1
    assert '255 (25.0 % of the pixels) is taken for unlabelled' in said[0]
    assert "class 1 ('garment') never occurs" in said[0]
    assert 'write 1 instead' in said[0]


def test_binary_maps_for_many_classes_cause_a_warning(tmp_path, said):
    check_dataset_cfg(write_maps(tmp_path, THREE, [0, 255], 'abcd'))
    assert "3 of 4 classes never occur: 'b', 'c', 'd'" in said[0]


@pytest.mark.parametrize('values', [[0, 1, 2], [0, 0, 0, 2], [0, 1, 2, 255]])
def test_zero_labels_that_are_classes_cause_a_warning(tmp_path, said, values):
    cfg = write_maps(tmp_path, THREE, values, 'abc', reduce_zero_label=True)
    check_dataset_cfg(cfg)
    assert len(said) == 1
    assert 'reduce_zero_label=True drops label 0 (' in said[0]
    assert "'c'" in said[0]
    assert 'set reduce_zero_label=False' in said[0]


def test_labels_from_1_without_reduce_zero_label_cause_a_warning(tmp_path, said):
    check_dataset_cfg(write_maps(tmp_path, THREE, [1, 2, 255], 'abc'))
    assert "label 0 is in no map, so that class 0 ('a') never occurs" in said[0]
    assert 'reduce_zero_label=True' in said[0]


def test_labels_up_to_the_number_of_classes_are_refused_with_advice(tmp_path):
    cfg = write_maps(tmp_path, THREE, [0, 1, 2, 3], 'abc')
    refused(cfg, 'label 3, but there are 3 classes', 'set reduce_zero_label=True')


@pytest.mark.parametrize(
    'values, settings',
    [
        ([0, 1, 2], {}),
        ([0, 1, 2, 255], {}),
        ([0, 1], {}),
        ([0, 1, 2, 3], dict(reduce_zero_label=True)),
        ([1, 2, 3], dict(reduce_zero_label=True)),
        ([0, 1, 1, 1, 1], dict(reduce_zero_label=True)),  # a small part of a larger set
        ([0, 1, 2, 7], dict(ignore_index=7)),
    ],
)
def test_usual_labels_cause_no_warning(tmp_path, said, values, settings):
    check_dataset_cfg(write_maps(tmp_path, THREE, values, 'abc', **settings))
    assert said == []


def test_maps_without_a_class_are_no_training_data(tmp_path, said):
    cfg = write_maps(tmp_path, THREE, [0, 255], 'abc', reduce_zero_label=True)
    refused(cfg, 'no pixel has a class', '255 (50.0 % of the pixels)', 'set reduce_zero_label=False in the dataset')
    check_dataset_cfg(dict(cfg, test_mode=True))
    assert 'no pixel has a class' in said[0]
    refused(write_maps(tmp_path / 'b', THREE, [255], 'abc', reduce_zero_label=True), 'with 1 as the first class.')
    refused(write_maps(tmp_path / 'c', THREE, [255], 'abc'), 'Write the label maps again.')


def test_some_maps_of_ade20k_cause_no_warning(tmp_path, said):
    """Its 0 is unlabelled, and few images show all of its classes."""
    cfg, _, maps = segmentation(tmp_path, dict(type='ADE20KDataset'), 4, *STOCK[0][1:])
    for path in maps:
        Image.fromarray(np.random.default_rng(0).integers(0, 60, (8, 8), dtype=np.uint8)).save(path)
    check_dataset_cfg(cfg)
    assert said == []


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, bool])
def test_labels_are_counted(dtype):
    from addp_mm.checks.label_counts import count_labels

    assert count_labels(np.array([[0, 1, 1], [1, 0, 1]], dtype)) == {0: 2, 1: 4}


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


def test_damaged_label_maps_are_counted_together(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr('addp_mm.checks.tolerance.print_log', lambda text, *_: warnings.append(text))
    cfg, _, maps = segmentation(tmp_path, THREE, 12, '.png', '.png')
    for path in maps[:10]:
        path.write_bytes(b'')
    with tolerating(0):  # and ten more
        check_dataset_cfg(cfg)
        assert len(warnings) == 1
        assert '10 label maps cannot be read: ' in warnings[0]
        maps[10].write_bytes(b'')
        refused(cfg, '11 label maps cannot be read', maps[0], 'and 6 more')
    refused(cfg, '11 label maps cannot be read')
    assert len(warnings) == 1


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


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes')
@pytest.mark.parametrize('what', ['image', 'label map'])
def test_a_file_that_is_never_read_is_named_after_the_time_limit(tmp_path, what):
    cfg, images, maps = segmentation(tmp_path, THREE, 3, '.png', '.png')
    path = (images if what == 'image' else maps)[1]
    path.unlink()
    os.mkfifo(path)  # nobody writes to it: a read waits for ever
    with tolerating(None, seconds=0.2):
        refused(cfg, path, 'not read within 0.2 s', 'Replace')
