# Copyright (c) addp_mm contributors. Apache-2.0.
"""Folders of label maps: written, read by one reader, and refused if they are damaged."""

import json
import pickle
import re

import pytest
import torch
from helpers.label_map_files import random_map, write_maps

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.map_folder import ABOUT, create_folder
from addp_mm.datasets.token_labels.open_maps import open_label_maps
from addp_mm.datasets.token_labels.published_maps import PublishedMaps
from addp_mm.datasets.token_labels.stored_maps import StoredMaps

NAMES = ['b/2.jpg', 'a/1.jpg', 'b/1.jpg', 'a-b/ä.png', 'c.jpg']


@pytest.fixture
def folder(tmp_path):
    write_maps(tmp_path / 'maps', NAMES)
    return tmp_path / 'maps'


def message(call, *args) -> str:
    with pytest.raises(LabelMapError) as error:
        call(*args)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_what_is_written_is_read(folder):
    maps = open_label_maps(folder, 11)
    assert isinstance(maps, StoredMaps)
    assert (len(maps), maps.num_classes) == (5, 11)
    for seed, name in enumerate(sorted(NAMES, key=str.encode)):
        read, written = maps.read(name), random_map(seed)
        assert torch.equal(read.scores, written.scores.half().float())
        assert torch.equal(read.classes, written.classes)
    assert sorted(path.name for path in folder.glob('*.safetensors')) == [
        f'maps-0000{n}-of-00003.safetensors' for n in range(3)
    ]


def test_a_map_takes_four_bytes_for_each_class_and_position(tmp_path):
    write_maps(tmp_path, [f'{n}.jpg' for n in range(40)], images_per_file=40)
    assert (tmp_path / 'maps-00000-of-00001.safetensors').stat().st_size < 40 * 3 * 14 * 14 * 4 + 500


def test_a_pickle_holds_only_the_path(folder):
    maps = StoredMaps(folder)
    maps.read('c.jpg')
    content = pickle.dumps(maps)
    assert len(content) < 500
    assert torch.equal(pickle.loads(content).read('c.jpg').scores, maps.read('c.jpg').scores)


def test_a_missing_image_is_named_with_the_tool(folder):
    text = message(StoredMaps(folder).read, 'b/3.jpg')
    assert 'no label map of b/3.jpg' in text
    assert 'addp label-maps' in text
    assert StoredMaps(folder).absent(['b/3.jpg', 'b/2.jpg', 'a/0.jpg']) == ['a/0.jpg', 'b/3.jpg']


def test_another_number_of_classes_is_refused(folder):
    assert f'{folder} has label maps of 11 classes, but num_classes is 10' in message(open_label_maps, folder, 10)


def test_missing_files_are_named(folder):
    (folder / 'maps-00001-of-00003.safetensors').unlink()
    assert '1 of 3 files of label maps are missing (number 1)' in message(StoredMaps, folder)


def test_a_truncated_file_is_named(folder):
    path = folder / 'maps-00002-of-00003.safetensors'
    path.write_bytes(path.read_bytes()[:-100])
    assert f'{path} is damaged' in message(StoredMaps(folder).read, 'c.jpg')


def test_a_file_of_other_maps_is_refused(folder, tmp_path):
    write_maps(tmp_path / 'other', NAMES, num_classes=12)
    name = 'maps-00002-of-00003.safetensors'
    (folder / name).write_bytes((tmp_path / 'other' / name).read_bytes())
    assert f'{name} does not belong to {folder / ABOUT}' in message(StoredMaps(folder).read, 'c.jpg')


@pytest.mark.parametrize(
    'scores, classes, found',
    [
        (torch.full((1, 3, 14, 14), float('nan')), 1, 'not finite'),
        (torch.full((1, 3, 14, 14), 0.5), 1, 'not probabilities'),
        (torch.zeros(1, 3, 14, 14), 11, 'has class 11, but there are 11 classes'),
        (torch.zeros(1, 3, 14, 14), -1, 'c.jpg could not be read when the label maps were written'),
    ],
)
def test_damaged_values_are_named(folder, scores, classes, found):
    StoredMaps(folder).files.write(2, scores, torch.full((1, 3, 14, 14), classes))
    text = message(StoredMaps(folder).read, 'c.jpg')
    assert found in text
    assert 'maps-00002-of-00003.safetensors' in text


def test_the_list_of_other_images_is_refused(folder, tmp_path):
    write_maps(tmp_path / 'other', NAMES[:4])
    (folder / 'images.names').write_bytes((tmp_path / 'other/images.names').read_bytes())
    assert 'images.names is not the list of images of' in message(StoredMaps, folder)


@pytest.mark.parametrize(
    'content, found', [('{', 'is damaged'), ('{"format": 7}', 'has no num_classes'), ('[]', 'is damaged')]
)
def test_a_damaged_description_is_named(folder, content, found):
    (folder / ABOUT).write_text(content)
    text = message(open_label_maps, folder, 11)
    assert f'{folder / ABOUT} {found}' in text


def test_another_format_is_refused(folder):
    about = json.loads((folder / ABOUT).read_text())
    write_json(folder / ABOUT, about | dict(format=7))
    assert 'has format 7, and this version reads 1' in message(open_label_maps, folder, 11)


def test_a_folder_is_continued_only_with_the_same_settings(folder):
    settings = dict(num_classes=11, top_k=3, map_size=[14, 14], images_per_file=2)
    assert create_folder(folder, NAMES, settings, {}).missing() == []
    assert 'map_size is [14, 14], but [18, 18] is needed' in message(
        create_folder, folder, NAMES, settings | dict(map_size=[18, 18]), {}
    )
    assert 'images.count is 5, but 4 is needed' in message(create_folder, folder, NAMES[:4], settings, {})
    renamed = message(create_folder, folder, [*NAMES[:4], 'd.jpg'], settings, {})
    assert 'images.fingerprint' in renamed


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / 'photo.jpg').touch()
    assert 'is not empty and has no label_maps.json' in message(create_folder, tmp_path, NAMES, {}, {})


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    folder = tmp_path / 'maps'
    folder.mkdir()
    (folder / '.label_maps.json.0.partial').touch()
    write_maps(folder, NAMES)
    (folder / 'images.names').unlink()
    (folder / 'maps-00002-of-00003.safetensors').rename(folder / '.maps-00002-of-00003.safetensors.0.partial')
    write_maps(folder, NAMES)
    assert len(StoredMaps(folder)) == len(NAMES)
    assert not list(folder.glob('.maps-*'))


def test_no_folder_names_the_tool(tmp_path):
    assert 'addp label-maps' in message(open_label_maps, tmp_path / 'none', 11)
    assert 'has no label maps: expected CLASS/IMAGE.pt' in message(open_label_maps, tmp_path, 11)


@pytest.fixture
def published(tmp_path):
    """A map in the layout of the published ones: half logits and half numbers, (2, 5, 18, 18)."""
    logits = torch.randn(1000, 18, 18, generator=torch.Generator().manual_seed(0)) + 8
    scores, classes = logits.topk(5, 0)
    (tmp_path / 'maps/n01440764').mkdir(parents=True)
    torch.save(torch.stack([scores.half(), classes.half()]), tmp_path / 'maps/n01440764/n01440764_18.pt')
    return tmp_path / 'maps', scores, classes


def test_published_maps_are_read(published):
    folder, scores, classes = published
    maps = open_label_maps(folder, 1000)
    assert isinstance(maps, PublishedMaps)
    read = maps.read('n01440764/n01440764_18.JPEG')
    assert read.kind == 'logit'
    assert torch.equal(read.scores, scores.half().float())
    assert torch.equal(read.classes, classes)
    assert maps.absent(['n01440764/n01440764_18.JPEG', 'n01440764/x.JPEG']) == ['n01440764/x.JPEG']


def test_published_maps_are_refused_if_damaged(published):
    folder, *_ = published
    maps, name = open_label_maps(folder, 1000), 'n01440764/n01440764_18.JPEG'
    path = folder / 'n01440764/n01440764_18.pt'
    assert 'x.JPEG has no label map' in message(maps.read, 'n01440764/x.JPEG')
    assert 'but there are 9 classes' in message(open_label_maps(folder, 9).read, name)
    torch.save(torch.zeros(3, 4), path)
    assert 'expected a tensor (2, K, h, w), found (3, 4)' in message(maps.read, name)
    path.write_bytes(path.read_bytes()[:100])
    assert str(path) in message(maps.read, name)


def test_published_maps_run_no_code(published):
    folder, *_ = published
    path = folder / 'n01440764/n01440764_18.pt'
    path.write_bytes(pickle.dumps(re.compile('x'), protocol=2))
    assert 're._compile' in message(open_label_maps(folder, 1000).read, 'n01440764/n01440764_18.JPEG')
