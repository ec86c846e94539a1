# Copyright (c) addp_mm contributors. Apache-2.0.
import io
import os
import shutil

import numpy as np
import pytest
from helpers.checked_data import dataset_cfg, refused
from PIL import Image

from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.checks.image_folders import check_image_folder, missing_files
from addp_mm.datasets import DatasetError
from addp_mm.datasets.fashion.fashion_mnist import CLASSES


@pytest.mark.parametrize('kind', ['pretrain', 'cls', 'det', 'seg'])
@pytest.mark.parametrize('loader', ['train', 'val'])
def test_a_complete_set_passes(written_set, kind, loader):
    check_dataset_cfg(dataset_cfg(kind, written_set, loader))


@pytest.mark.parametrize(
    'kind, marks',
    [('pretrain', 'scenes/train'), ('cls', 'objects/train'), ('det', 'annotations'), ('seg', 'scenes/train')],
)
def test_a_wrong_path_is_named_with_a_remedy(tmp_path, kind, marks):
    root = tmp_path / 'fashion_scenes'
    refused(
        dataset_cfg(kind, root),
        root / marks,
        f'{tmp_path} exists',
        'data_root',
        'tools/dataset_converters/fashion_scenes.py',
    )


def test_a_wrapped_dataset_is_checked(tmp_path):
    inner = dataset_cfg('pretrain', tmp_path / 'away')
    refused(dict(type='RepeatDataset', times=2, dataset=inner), tmp_path / 'away')
    refused(dict(type='ConcatDataset', datasets=[inner]), tmp_path / 'away')


def test_remote_data_are_not_checked():
    check_dataset_cfg(dict(type='CocoDataset', data_root='s3://bucket/coco', ann_file='a.json'))


def test_an_empty_folder_is_named(own_set):
    folder = own_set / 'scenes/train'
    shutil.rmtree(folder)
    folder.mkdir()
    refused(dataset_cfg('pretrain', own_set), folder, 'no images')


@pytest.mark.parametrize('content', [b'', b'text', None])
def test_a_damaged_image_is_named(own_set, content):
    path = own_set / 'scenes/train/000005.png'
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    refused(dataset_cfg('pretrain', own_set), path, 'Replace or remove')


def test_damage_in_the_middle_of_an_image_is_found(tmp_path, monkeypatch):
    """The end of the file is intact."""
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for index in range(150):
        Image.fromarray(values).save(tmp_path / f'{index:03d}.png')
    for index in (1, 2, 3, 61, 62, 63, 64):
        path = tmp_path / f'{index:03d}.png'
        content = path.read_bytes()
        path.write_bytes(content[:200] + bytes(200) + content[400:])
    with pytest.raises(DatasetError, match=r'7 images.*001\.png.*062\.png.*and 2 more'):
        check_image_folder(tmp_path)
    # if there are many images, only some are decoded, so that a training starts soon
    monkeypatch.setattr('addp_mm.checks.image_folders._MAX_CHECKED', 10)
    assert len(check_image_folder(tmp_path)) == 150


def test_images_with_bytes_after_their_end_pass(tmp_path):
    """Some cameras append data."""
    path = tmp_path / 'a.jpg'
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert check_image_folder(tmp_path) == ['a.jpg']


def test_a_file_instead_of_a_folder_is_named(tmp_path):
    (tmp_path / 'images').write_text('')
    with pytest.raises(DatasetError, match='is a file'):
        check_image_folder(tmp_path / 'images')


def test_an_empty_class_folder_is_named(own_set):
    for path in (own_set / 'objects/train/dress').iterdir():
        path.unlink()
    refused(dataset_cfg('cls', own_set), own_set / 'objects/train', "'dress'", 'have no images')


def test_a_missing_class_folder_is_named(own_set):
    shutil.rmtree(own_set / 'objects/train/dress')
    refused(dataset_cfg('cls', own_set), "missing: 'dress'")


def test_a_class_that_metainfo_lacks_is_named(own_set):
    cfg = dataset_cfg('cls', own_set)
    cfg.metainfo = dict(classes=[name for name in CLASSES if name != 'coat'])
    refused(cfg, "not in metainfo: 'coat'")


def test_classes_in_another_order_than_the_folders_are_refused(own_set):
    cfg = dataset_cfg('cls', own_set)
    cfg.metainfo = dict(classes=CLASSES[::-1])
    refused(cfg, 'alphabetical')


def test_another_number_of_class_folders_is_refused(own_set):
    cfg = dataset_cfg('cls', own_set)
    cfg.metainfo = dict(classes=['first', 'second'])
    refused(cfg, '10 class folders for 2 classes')


def list_cfg(root, lines):
    (root / 'list.txt').write_text('\n'.join(lines))
    return dict(
        type='CustomDataset',
        data_root=str(root),
        data_prefix='scenes/train',
        ann_file='list.txt',
        metainfo=dict(classes=['a', 'b']),
    )


def test_a_list_of_images_is_checked(own_set):
    check_dataset_cfg(list_cfg(own_set, ['000000.png 0', '000001.png 1']))
    refused(list_cfg(own_set, ['000000.png 0', '000001.png 2']), 'list.txt', 'label 2', '2 classes')
    refused(list_cfg(own_set, ['000000.png 0', '000099.png 1']), 'list.txt', "'000099.png'")
    refused(list_cfg(own_set, ['000000.png 0', '000001.png']), 'list.txt, line 2')
    refused(list_cfg(own_set, []), 'list.txt', 'empty')
    (own_set / 'list.txt').unlink()
    refused(dict(list_cfg(own_set, ['000000.png 0']), ann_file='other.txt'), 'other.txt', 'annotation file does not')


def long_list(root, count=2400):
    """Write a list of ``count`` images in two folders; return its config and the images."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(content, 'PNG')
    paths = [root / f'images/{"ab"[index % 2]}/{index:04d}.png' for index in range(count)]
    for folder in ('a', 'b'):
        (root / 'images' / folder).mkdir(parents=True)
    for path in paths:
        path.write_bytes(content.getvalue())
    lines = [f'{path.relative_to(root / "images")} {index % 2}' for index, path in enumerate(paths)]
    (root / 'list.txt').write_text('\n'.join(lines))
    return dict(
        type='CustomDataset',
        data_root=str(root),
        data_prefix='images',
        ann_file='list.txt',
        metainfo=dict(classes=['a', 'b']),
    ), paths


@pytest.mark.parametrize('index', [1500, 2398])
def test_a_list_is_checked_to_its_end(tmp_path, index):
    cfg, paths = long_list(tmp_path)
    check_dataset_cfg(cfg)
    content = paths[index].read_bytes()
    paths[index].write_bytes(content[:40])
    refused(cfg, paths[index], 'Replace or remove')
    paths[index].unlink()
    refused(cfg, 'list.txt', '1 of its 2400 images', f"'a/{index}.png'")


def test_a_list_is_compared_with_one_listing_of_each_folder(tmp_path, monkeypatch):
    cfg, _ = long_list(tmp_path, 40)
    listings = []
    listdir = os.listdir
    monkeypatch.setattr(os, 'listdir', lambda path: listings.append(str(path)) or listdir(path))
    names = (tmp_path / 'list.txt').read_text().replace(' 0', '').replace(' 1', '').split('\n')
    assert missing_files(tmp_path / 'images', [*names, 'a/none.png', 'c/0.png']) == ['a/none.png', 'c/0.png']
    assert listings == [str(tmp_path / 'images' / name) for name in 'ab']


@pytest.mark.slow
def test_subclasses_that_read_the_same_files_are_checked(own_set, tmp_path):
    from mmdet.datasets import CocoDataset
    from mmpretrain.datasets import CustomDataset

    class Mine(CocoDataset):
        pass

    class Folders(CustomDataset):
        pass

    class Otherwise(CocoDataset):
        def load_data_list(self):
            return []

    (own_set / 'scenes/train/000004.png').unlink()
    refused(dict(dataset_cfg('det', own_set), type=Mine), "'000004.png'")
    check_dataset_cfg(dict(dataset_cfg('det', own_set), type=Otherwise))
    refused(dict(type=Folders, data_prefix=str(tmp_path / 'away')), tmp_path / 'away', 'does not exist')
