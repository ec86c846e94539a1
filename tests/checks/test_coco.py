# Copyright (c) addp_mm contributors. Apache-2.0.
"""COCO annotations are checked record by record before anything is built."""

import os

import pytest
from helpers.checked_data import annotations_loader, change_json, dataset_cfg, refused
from PIL import Image

from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.checks.tolerance import tolerating


def test_an_annotation_file_that_lacks_a_class_is_named(own_set):
    path = own_set / 'annotations/instances_train.json'

    def drop(content):
        content['categories'] = [c for c in content['categories'] if c['name'] != 'sandal']
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 6]

    change_json(path, drop)
    refused(dataset_cfg('det', own_set), path, "'sandal'", 'metainfo')


@pytest.mark.slow
def test_coco_classes_of_mmdet_on_another_file_are_refused(own_set):
    cfg = dataset_cfg('det', own_set)
    del cfg['metainfo']
    refused(cfg, 'instances_train.json', "'person'", "'ankle-boot'", 'metainfo=dict(classes=')


def test_a_subset_of_the_classes_passes(own_set):
    cfg = dataset_cfg('det', own_set)
    cfg.metainfo = dict(classes=['bag', 'coat'])
    check_dataset_cfg(cfg)


@pytest.mark.parametrize('key, owners', [('category_id', 'categories'), ('image_id', 'images')])
def test_annotations_that_belong_to_nothing_are_refused(own_set, key, owners):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['annotations'][0].update({key: 77}))
    refused(dataset_cfg('det', own_set), path, '77', owners)


def test_an_incomplete_annotation_file_is_named(own_set):
    path = own_set / 'annotations/instances_train.json'
    path.write_text(path.read_text()[:500])
    refused(dataset_cfg('det', own_set), path, 'incomplete JSON')
    path.write_text('[]')
    refused(dataset_cfg('det', own_set), path, "'categories'")
    path.write_bytes(b'\xff\xfe\xfa')
    refused(dataset_cfg('det', own_set), path, 'not a text file')
    path.unlink()
    refused(dataset_cfg('det', own_set), path, 'this annotation file does not exist')


def test_an_annotation_file_without_images_is_refused(own_set):
    change_json(own_set / 'annotations/instances_train.json', lambda content: content.update(images=[]))
    refused(dataset_cfg('det', own_set), '"images" is empty')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes')
def test_an_image_that_is_never_read_is_named_after_the_time_limit(own_set):
    image = own_set / 'scenes/train/000004.png'
    image.unlink()
    os.mkfifo(image)  # nobody writes to it: a read waits for ever
    with tolerating(None, seconds=0.2):
        refused(dataset_cfg('det', own_set), image, 'not read within 0.2 s')
    with tolerating(0, seconds=0.2):
        check_dataset_cfg(dataset_cfg('det', own_set))


def test_images_that_annotations_name_must_exist(own_set):
    (own_set / 'scenes/train/000004.png').unlink()
    refused(dataset_cfg('det', own_set), own_set / 'scenes/train', "'000004.png'", '1 of its 12 images')


def lacks(own_set, section, index, key):
    """The refusal of a set whose annotation file lacks ``key`` in one record."""
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content[section][index].pop(key))
    refused(dataset_cfg('det', own_set), f'{path}: {section}[{index}]', f"lacks '{key}'", 'write the file again')


@pytest.mark.parametrize('key', ['id', 'image_id', 'category_id', 'bbox'])
def test_an_annotation_that_lacks_a_key_is_named(own_set, key):
    lacks(own_set, 'annotations', 3, key)


@pytest.mark.parametrize('section, key', [('images', 'width'), ('images', 'file_name'), ('categories', 'name')])
def test_an_image_or_category_that_lacks_a_key_is_named(own_set, section, key):
    lacks(own_set, section, 1, key)


@pytest.mark.parametrize(
    'change, text',
    [
        (dict(bbox=[1, 2, 3]), '[1, 2, 3]'),
        (dict(bbox=[1, 2, float('nan'), 4]), 'nan'),
        (dict(bbox=[1, 2, float('inf'), 4]), 'inf'),
        (dict(bbox=[1, 2, '3', 4]), "'3'"),
        (dict(bbox=[1, 2, True, 4]), 'True'),
        (dict(bbox=[[1, 2], [3, 4]]), '[[1, 2], [3, 4]]'),
        (dict(bbox=[20, 20, -4, 5]), 'whose size is negative'),
        (dict(bbox=None), 'bbox None'),
        (dict(area='large'), "'large'"),
        (dict(area=True), 'area True'),
        (dict(category_id=[1]), 'category_id [1]'),
        (dict(image_id=None), 'image_id None'),
        (dict(category_id=True), 'category_id True'),
        (dict(image_id=1.5), 'image_id 1.5'),
        (dict(iscrowd='0'), "iscrowd '0'"),
        (dict(ignore='no'), "ignore 'no'"),
        (dict(segmentation=[1, 1, 9, 1, 9, 9]), 'the polygon 1, which is not a list'),
        (dict(segmentation=[[[1, 1], [9, 1], [9, 9]]]), '[1, 1] in a polygon'),
        (dict(segmentation=[[1, 1, 9, 1, 9, 9, 5]]), 'a polygon of 7 numbers'),
        (dict(segmentation=[[1, 1, 9, 1, 9, float('nan')]]), 'nan in a polygon'),
        (dict(segmentation=[[1, 1, 9, 1, 9, '9']]), "'9' in a polygon"),
        (dict(segmentation='polygon'), "'polygon'"),
        (dict(segmentation=dict(size=[32, 64], counts=[0, 2048])), 'an RLE of the size [32, 64]'),
        (dict(segmentation=dict(size=[64, 64], counts=[0, 64])), 'an RLE of 64 pixels, but its image has 4096'),
        (dict(segmentation=dict(size=[64, 64], counts=[-1, 4097])), 'counts [-1, 4097]'),
        (dict(segmentation=dict(size=[64, 64], counts='PPPo1')), 'an RLE of '),
        (dict(segmentation=dict(size=[64, 64], counts='P')), "counts 'P'"),
        (dict(segmentation=dict(size=[64, 64], counts='\u00e9')), 'an RLE with the counts'),
        (dict(segmentation=dict(counts=[0, 4096])), 'an RLE of the size None'),
        (dict(id=1), 'another record has the same id'),
    ],
)
def test_an_annotation_with_a_wrong_value_is_named(own_set, change, text):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['annotations'][3].update(change))
    refused(dataset_cfg('det', own_set), f'{path}: annotations[3]', text)


@pytest.mark.parametrize(
    'change, text',
    [
        (dict(file_name=7), 'file_name 7'),
        (dict(width='64'), "width '64'"),
        (dict(height=0), 'height 0'),
        (dict(height=float('nan')), 'height nan'),
        (dict(width=True), 'width True'),
    ],
)
def test_an_image_with_a_wrong_value_is_named(own_set, change, text):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['images'][2].update(change))
    refused(dataset_cfg('det', own_set), f'{path}: images[2]', text)


@pytest.mark.parametrize('loader', ['train', 'val'])
def test_boxes_beyond_their_image_are_refused(own_set, loader):
    path = own_set / f'annotations/instances_{loader}.json'
    cfg = dataset_cfg('det', own_set, loader)

    def set_boxes(content, box, **others):
        for annotation in content['annotations'][3:]:
            annotation.update(bbox=box, **others)

    change_json(path, lambda content: set_boxes(content, [4, 5, 61, 60]))
    check_dataset_cfg(cfg)
    change_json(path, lambda content: set_boxes(content, [4, 5, 60, 61]))
    refused(cfg, f'{path}: annotations[3]', '[4, 5, 60, 61]', 'width 64 and height 64')
    change_json(path, lambda content: set_boxes(content, [4, 5, 60, 61], ignore=True))
    check_dataset_cfg(cfg)


def test_a_few_boxes_beyond_their_images_cause_a_warning(own_set, monkeypatch):
    path, said = own_set / 'annotations/instances_train.json', []
    monkeypatch.setattr('addp_mm.checks.coco.print_log', lambda words, *_: said.append(words))
    change_json(path, lambda content: content['annotations'][3].update(bbox=[4, 5, 60, 61]))
    check_dataset_cfg(dataset_cfg('det', own_set))
    assert 'annotations[3]' in said[0]
    assert 'So do 1 of' in said[0]
    assert 'mmdet clips' in said[0]


def test_boxes_between_0_and_1_are_refused(own_set):
    path = own_set / 'annotations/instances_train.json'

    def divide(content):
        for annotation in content['annotations']:
            annotation['bbox'] = [number / 64 for number in annotation['bbox']]

    change_json(path, divide)
    cfg = dataset_cfg('det', own_set)
    annotations_loader(cfg).with_mask = False
    refused(cfg, path, 'between 0 and 1', 'Multiply')


def test_polygons_between_0_and_1_are_refused(own_set):
    path = own_set / 'annotations/instances_train.json'

    def divide(content):
        for annotation in content['annotations']:
            annotation['segmentation'] = [[0.1, 0.1, 0.9, 0.1, 0.9, 1]]

    change_json(path, divide)
    cfg = dataset_cfg('det', own_set)
    refused(cfg, path, 'every polygon is between 0 and 1', 'Multiply')
    change_json(path, lambda content: content['annotations'][-1].update(segmentation=[[1, 1, 9, 1, 9, 9]]))
    check_dataset_cfg(cfg)


def test_a_size_that_differs_from_the_image_is_named(own_set):
    path, file = own_set / 'annotations/instances_train.json', own_set / 'scenes/train/000004.png'
    rotated = Image.Exif()
    rotated[0x0112] = 6
    image = Image.open(file).crop((0, 0, 64, 48))
    image.save(file, exif=rotated)
    cfg = dataset_cfg('det', own_set)
    refused(cfg, f'{path}: images[4]', 'width 64 and the height 64', f'{file} is 48 wide and 64 high')
    cfg.pipeline[0] = dict(type='LoadAnything')
    check_dataset_cfg(cfg)


def test_a_training_needs_annotations(own_set):
    for loader in ('train', 'val'):
        change_json(own_set / f'annotations/instances_{loader}.json', lambda content: content.update(annotations=[]))
    cfg = dataset_cfg('det', own_set)
    refused(cfg, 'instances_train.json', 'no training data', 'ann_file')
    check_dataset_cfg(dataset_cfg('det', own_set, 'val'))
    cfg.pipeline = [dict(type='LoadEmptyAnnotations')]
    refused(cfg, 'filter_cfg drops all 12 images', 'filter_empty_gt=True')
    cfg.filter_cfg = None
    check_dataset_cfg(cfg)


def test_a_record_that_is_a_number_is_named(own_set):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['annotations'].insert(2, 7))
    refused(dataset_cfg('det', own_set), f'{path}: annotations[2] is 7')


@pytest.mark.parametrize('empty', [None, []])
def test_annotations_without_masks_are_refused_if_the_pipeline_loads_masks(own_set, empty):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['annotations'][3].update(segmentation=empty))
    cfg = dataset_cfg('det', own_set)
    refused(cfg, f'{path}: annotations[3]', 'no segmentation', 'with_mask=False')
    annotations_loader(cfg).with_mask = False
    check_dataset_cfg(cfg)


@pytest.mark.parametrize('change', [dict(ignore=True), dict(area=0), dict(bbox=[3, 3, 0.5, 4])])
def test_annotations_that_mmdet_drops_need_no_mask(own_set, change):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content['annotations'][3].update(change, segmentation=None))
    check_dataset_cfg(dataset_cfg('det', own_set))


@pytest.mark.parametrize('section', ['images', 'categories'])
def test_ids_of_mixed_types_are_refused(own_set, section):
    path = own_set / 'annotations/instances_train.json'
    change_json(path, lambda content: content[section][1].update(id='x'))
    refused(dataset_cfg('det', own_set), path, f'some ids of {section} are strings, others are numbers')


def test_a_file_without_categories_is_refused(own_set):
    change_json(own_set / 'annotations/instances_train.json', lambda content: content.update(categories=[]))
    refused(dataset_cfg('det', own_set), '"categories" is empty')


def test_a_filter_that_drops_all_images_is_refused(own_set):
    cfg = dataset_cfg('det', own_set)
    cfg.filter_cfg = dict(filter_empty_gt=True, min_size=65)
    refused(cfg, 'drops all 12 images: 12 have a side below filter_cfg.min_size=65', 'set filter_cfg.min_size to 64')
    check_dataset_cfg(dict(cfg, test_mode=True))
    cfg.filter_cfg.min_size = 64
    check_dataset_cfg(cfg)


def test_a_filter_that_drops_most_images_causes_a_warning(own_set, monkeypatch):
    said, path = [], own_set / 'annotations/instances_train.json'
    monkeypatch.setattr('addp_mm.checks.coco_filter.print_log', lambda words, *_: said.append(words))

    def enlarge(content):
        content['images'][0].update(width=128, height=128)

    Image.new('RGB', (128, 128)).save(own_set / 'scenes/train/000000.png')
    change_json(path, enlarge)
    cfg = dataset_cfg('det', own_set)
    cfg.filter_cfg = dict(min_size=65)
    annotations_loader(cfg).with_mask = False
    check_dataset_cfg(cfg)
    assert 'drops 11 of 12 images: 11 have a side below filter_cfg.min_size=65' in said[0]


def test_annotations_that_mmdet_drops_are_no_training_data(own_set):
    path = own_set / 'annotations/instances_train.json'

    def empty(content):
        for annotation in content['annotations']:
            annotation['area'] = 0
        content['annotations'][0]['ignore'] = 1

    change_json(path, empty)
    refused(dataset_cfg('det', own_set), 'mmdet drops all', 'whose area is 0, 1 with ignore')


def test_a_polygon_of_two_points_in_training_causes_a_warning(own_set, monkeypatch):
    """mmdet ignores it, also without addp_mm."""
    said, path = [], own_set / 'annotations/instances_train.json'
    monkeypatch.setattr('addp_mm.checks.coco.print_log', lambda words, *_: said.append(words))
    change_json(path, lambda content: content['annotations'][3].update(segmentation=[[1, 1, 9, 9]]))
    cfg = dataset_cfg('det', own_set)
    [(_, file)] = check_dataset_cfg(cfg)
    assert file.content is None
    assert 'annotations[3]' in said[0]
    assert 'its polygons enclose nothing. 1 of' in said[0]
    annotations_loader(cfg).with_mask = False
    check_dataset_cfg(cfg)
    assert len(said) == 1
