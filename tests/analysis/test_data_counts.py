# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is counted of dataset configs, and what is worth a look in it."""

import json
import shutil

import numpy as np
import pytest
from helpers.balanced_html import unbalanced
from helpers.checked_data import change_json
from helpers.html_page import ParsedPage
from helpers.recipes import load_recipe, recipe_scope
from PIL import Image

from addp_mm.analysis.data_counts import Counting
from addp_mm.analysis.data_findings import findings
from addp_mm.analysis.data_page import write_data_page
from addp_mm.analysis.data_report import datasets_of

CONFIGS = dict(
    det='det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py',
    seg='seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py',
    cls='cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px.py',
)


def counted(task, root, change=lambda cfg: None, splits=('train',), **options):
    """The reports of a recipe on the data in ``root``, after ``change`` has changed its config."""
    cfg = load_recipe(CONFIGS[task])
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
    change(cfg)
    with recipe_scope(cfg):
        return [Counting(**options)(split, part) for split, part in datasets_of(cfg, splits)]


@pytest.fixture
def own_scenes(small_scenes, tmp_path):
    return shutil.copytree(small_scenes, tmp_path / 'scenes')


def test_binary_maps_whose_second_class_is_ignored(own_scenes):
    for path in (own_scenes / 'labels').rglob('*.png'):
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 1, 255, 0).astype(np.uint8)).save(path)

    def binary(cfg):
        cfg.train_dataloader.dataset.metainfo = dict(classes=['background', 'garment'], palette=[[0] * 3, [255] * 3])
        cfg.train_dataloader.dataset.reduce_zero_label = False

    (report,) = counted('seg', own_scenes, binary)
    assert report.by_class[1] == 0
    assert report.labels.ignored == report.labels.stored[255] > 0
    assert findings([report], None) == ['train: 1 of 2 classes never occurs: garment']


def test_labels_from_0_that_are_reduced(own_scenes):
    for path in (own_scenes / 'labels').rglob('*.png'):
        Image.fromarray((np.asarray(Image.open(path)) - 1).astype(np.uint8)).save(path)
    (report,) = counted('seg', own_scenes)
    assert report.labels.ignored == report.labels.stored[0] > report.labels.pixels / 2
    found = findings([report], None)
    assert 'trouser' in found[0]
    assert '% of the pixels are ignored' in found[1]


def test_boxes_that_need_a_look(own_scenes):
    def worse(content):
        first, second, third = content['annotations'][:3]
        first['bbox'][2] = 0.5
        second['iscrowd'] = 1
        third['bbox'] = [60, 60, 30, 30]

    change_json(own_scenes / 'annotations/instances_train.json', worse)
    change_json(own_scenes / 'annotations/instances_val.json', lambda content: content.update(annotations=[]))
    train, val = counted('det', own_scenes, splits=('train', 'val', 'test'), num_samples=2)
    assert val.split == 'val and test'
    assert (train.boxes.degenerate, train.boxes.ignored, train.boxes.outside) == (1, 1, 1)
    assert (val.boxes.empty_images, val.samples) == (2, [])
    assert len(train.samples) == 2
    found = '; '.join(findings([train, val], None))
    for phrase in ('exceed their image', 'less than one pixel', 'val and test: there is no object'):
        assert phrase in found


def test_wrappers_are_opened_and_equal_datasets_are_counted_once(own_scenes):
    def repeat(cfg):
        inner = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = dict(
            type='ConcatDataset',
            datasets=[inner, dict(type='RepeatDataset', times=2, dataset=cfg.val_dataloader.dataset)],
        )

    reports = counted('cls', own_scenes, repeat, ('train', 'val', 'test'))
    assert [report.split for report in reports] == ['train', 'train and val and test']
    assert [report.images for report in reports] == [10, 10]


def test_a_dataset_of_boxes_that_is_not_in_cocos_format(tmp_path):
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    Image.new('RGB', (50, 40)).save(tmp_path / 'JPEGImages/a.jpg')
    (tmp_path / 'ImageSets/Main/train.txt').write_text('a')
    boxes = dict(dog=(11, 6, 30, 25), cat=(1, 1, 60, 20))
    objects = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>'
        f'<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>'
        for name, box in boxes.items()
    )
    (tmp_path / 'Annotations/a.xml').write_text(f'<annotation>{objects}</annotation>')
    change = {
        'type': 'VOCDataset',
        'ann_file': 'ImageSets/Main/train.txt',
        'data_prefix': dict(sub_data_root=''),
        'data_root': f'{tmp_path}/',
        'pipeline': [],
    }

    def voc(cfg):
        cfg.train_dataloader.dataset = change

    (report,) = counted('det', tmp_path, voc, num_samples=1)
    assert report.boxes.objects == 2
    assert dict(zip(report.classes, report.by_class, strict=True))['dog'] == 1
    assert report.boxes.width.text() == '19 / 39 / 59'  # mmdet subtracts one from all numbers
    assert report.boxes.outside == 1
    assert report.sizes.common == [(50, 40, 1)]
    assert [box for _, box, _ in report.samples[0].objects] == [[10.0, 5.0, 19.0, 19.0], [0.0, 0.0, 59.0, 19.0]]


def test_two_datasets_of_a_split_have_different_names(own_scenes):
    def two(cfg):
        inner = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = dict(
            type='ConcatDataset', datasets=[inner, dict(inner, data_prefix='objects/val')]
        )

    assert [report.split for report in counted('cls', own_scenes, two)] == ['train', 'train (2)']


def test_images_of_several_classes_and_of_none(tmp_path):
    labels = [[0, 2], [], [2]]
    for index in range(len(labels)):
        Image.new('RGB', (8 + index, 6)).save(tmp_path / f'{index}.png')
    content = dict(
        metainfo=dict(classes=['a', '$b$', '<c>']),
        data_list=[dict(img_path=f'{index}.png', gt_label=label) for index, label in enumerate(labels)],
    )
    (tmp_path / 'labels.json').write_text(json.dumps(content))

    def several(cfg):
        cfg.train_dataloader.dataset = dict(
            type='MultiLabelDataset', data_root=str(tmp_path), ann_file='labels.json', pipeline=[]
        )

    (report,) = counted('cls', tmp_path, several, num_samples=3)
    assert report.by_class == [1, 0, 2]
    assert report.sizes.distinct == 3
    assert [sample.labels_of_image for sample in report.samples] == labels
    assert findings([report], None) == ['train: 1 of 3 classes never occurs: $b$']


def test_the_page_of_names_that_are_markup_or_formulas(small_scenes, tmp_path):
    def rename(cfg):
        classes = ['$x^', '<b>', '{{ 1 }}', '图像', 'é', 'a&b', '%s', "'", '"', '\\']
        cfg.train_dataloader.dataset.update(type='CustomDataset', metainfo=dict(classes=classes))

    reports = counted('cls', small_scenes, rename, num_samples=4)
    page = tmp_path / 'page.html'
    write_data_page(page, 'config', {'<i>': [], 'data': ['<script>']}, ['a < b'], reports, None, 'addp check')
    html = page.read_text()
    assert (unbalanced(html), ParsedPage(html).external()) == ([], [])
    assert '<script>' not in html
    for name in reports[0].classes:
        assert name in ParsedPage(html).text
