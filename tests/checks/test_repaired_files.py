# Copyright (c) addp_mm contributors. Apache-2.0.
"""Datasets and metrics read the repaired copies of COCO files."""

import json
import shutil

import pytest
from helpers.checked_data import BASES, change_json
from mmengine.config import Config
from mmengine.registry import init_default_scope

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.coco_use import CocoUse, use_of
from addp_mm.checks.datasets import check_datasets
from addp_mm.checks.evaluators import check_evaluator
from addp_mm.datasets import DatasetError

BOTH = ('train_dataloader', 'val_dataloader')


@pytest.fixture(autouse=True)
def in_mmdet():
    init_default_scope('mmdet')


@pytest.fixture
def said(monkeypatch):
    """Lines of the log about repairs and objects."""
    words = []
    for module in ('repaired_files', 'coco_filter'):
        monkeypatch.setattr(f'addp_mm.checks.{module}.print_log', lambda text, *_: words.append(text))
    return words


def config(root) -> Config:
    """The FashionScenes config of detection on the data in ``root``."""
    cfg = Config.fromfile(BASES / 'fashion_scenes_det.py')
    for loader in (*BOTH, 'test_dataloader'):
        cfg[loader].dataset.data_root = str(root)
    for evaluator in ('val_evaluator', 'test_evaluator'):
        cfg[evaluator].ann_file = f'{root}/annotations/instances_val.json'
    return cfg


def drop_iscrowd(path):
    change_json(path, lambda content: [one.pop('iscrowd') for one in content['annotations']])


def test_both_read_the_repaired_copy(own_set, tmp_path, said):
    cfg, path = config(own_set), own_set / 'annotations/instances_val.json'
    drop_iscrowd(path)
    before = path.read_text()
    check_evaluator(cfg, 'val')
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path / 'copies')
    copy = str(tmp_path / 'copies/val_instances_val.json')
    assert cfg.val_dataloader.dataset.ann_file == cfg.val_evaluator.ann_file == copy
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train.json'
    assert path.read_text() == before
    right = json.loads(before)
    for annotation in right['annotations']:
        annotation['iscrowd'] = 0
    with open(copy) as file:
        assert json.load(file) == right
    count = len(right['annotations'])
    repaired = f'{path}: repaired: annotations without iscrowd (taken as 0): {count}.'
    assert said == [
        f'{repaired} Training and test use a repaired copy, annotations/val_instances_val.json in the work dir.'
    ]
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path / 'copies')
    assert len(said) == 1


def test_mmdet_reads_the_repaired_copy(own_set, tmp_path):
    from mmdet.registry import DATASETS, METRICS

    cfg = config(own_set)
    change_json(own_set / 'annotations/instances_val.json', lambda content: content['annotations'][0].pop('area'))
    check_datasets(cfg, 'val_dataloader', repaired_dir=tmp_path / 'copies')
    dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[]))
    metric = METRICS.build(cfg.val_evaluator)
    assert len(dataset) == len(metric._coco_api.imgs) == 6  # mmdet has no public name
    assert dataset[0]['img_path'] == str(own_set / 'scenes/val/000000.png')


def test_files_without_faults_are_not_copied(own_set, tmp_path, said):
    cfg = config(own_set)
    drop_iscrowd(own_set / 'annotations/instances_train.json')  # only metrics read it
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path / 'copies')
    assert not (tmp_path / 'copies').exists()
    assert said == []


def test_without_a_folder_repairs_are_only_logged(own_set, said):
    cfg = config(own_set)
    drop_iscrowd(own_set / 'annotations/instances_val.json')
    check_datasets(cfg, 'val_dataloader')
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/instances_val.json'
    assert 'annotations without iscrowd (taken as 0): ' in said[0]
    assert 'copy' not in said[0]


def test_wrapped_datasets_and_lists_of_metrics_read_the_copies(own_set, tmp_path):
    cfg, path = config(own_set), own_set / 'annotations/instances_val.json'
    shutil.copy(path, own_set / 'annotations/more.json')
    for one in (path, own_set / 'annotations/more.json'):
        drop_iscrowd(one)
    inner = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=1, dataset=inner), dict(inner, ann_file='annotations/more.json')],
    )
    cfg.val_evaluator = [dict(type='DumpDetResults', out_file_path='a.pkl'), cfg.val_evaluator]
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    first, second = cfg.val_dataloader.dataset.datasets
    assert first.dataset.ann_file == cfg.val_evaluator[1].ann_file == str(tmp_path / 'val0_instances_val.json')
    assert second.ann_file == str(tmp_path / 'val1_more.json')


def test_a_file_that_only_a_metric_reads_is_checked_and_repaired(own_set, tmp_path):
    cfg, merged = config(own_set), own_set / 'annotations/merged.json'
    shutil.copy(own_set / 'annotations/instances_val.json', merged)
    drop_iscrowd(merged)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset])
    cfg.val_evaluator.ann_file = str(merged)
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'val1_merged.json')
    assert cfg.val_dataloader.dataset.datasets[0].ann_file == 'annotations/instances_val.json'
    cfg.val_evaluator.ann_file = str(merged)
    change_json(merged, lambda content: content['annotations'][0].update(bbox='box'))
    with pytest.raises(DatasetError, match=r"merged.json: annotations\[0\].*'box'"):
        check_datasets(cfg, *BOTH)


def test_a_training_file_without_areas_is_repaired(own_set, tmp_path):
    cfg = config(own_set)
    change_json(own_set / 'annotations/instances_train.json', lambda content: content['annotations'][2].pop('area'))
    check_datasets(cfg, *BOTH, repaired_dir=tmp_path)
    assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / 'train_instances_train.json')
    assert cfg.val_evaluator.ann_file == f'{own_set}/annotations/instances_val.json'


def test_an_ignored_region_without_a_place_is_refused_if_a_metric_reads_it(own_set):
    for split in ('train', 'val'):

        def change(content):
            annotation = content['annotations'][1]
            annotation['ignore'] = 1
            for key in ('area', 'bbox', 'segmentation'):
                del annotation[key]

        change_json(own_set / f'annotations/instances_{split}.json', change)
    cfg = config(own_set)
    check_datasets(cfg, 'train_dataloader')
    with pytest.raises(DatasetError, match=r'annotations\[1\] \(id \d+\) has ignore, but neither bbox nor segm'):
        check_datasets(cfg, *BOTH)


@pytest.mark.parametrize('change', [[], dict(iscrowd=1), dict(ignore=1)])
def test_a_validation_set_without_an_object_causes_a_warning(own_set, said, change):
    def edit(content):
        if change:
            for annotation in content['annotations']:
                annotation.update(change)
        else:
            content['annotations'] = []

    change_json(own_set / 'annotations/instances_val.json', edit)
    cfg = config(own_set)
    check_datasets(cfg, *BOTH)
    assert sum('no object to evaluate' in words and 'AP means nothing' in words for words in said) == 1
    said.clear()
    cfg.val_evaluator.update(format_only=True, outfile_prefix='a')
    check_datasets(cfg, *BOTH)
    assert not any('no object' in words for words in said)


def test_a_test_set_without_annotations_passes_if_it_is_not_scored(own_set, said):
    """As COCO's image_info_test-dev2017.json."""
    change_json(own_set / 'annotations/instances_val.json', lambda content: content.pop('annotations'))
    cfg = config(own_set)
    with pytest.raises(DatasetError, match="lacks 'annotations'"):
        check_datasets(cfg, 'test_dataloader')
    cfg.test_evaluator.update(format_only=True, outfile_prefix='a')
    check_datasets(cfg, 'test_dataloader')
    assert said == []


def test_no_masks_at_all_are_refused_if_the_metric_compares_masks(own_set):
    def edit(content):
        for annotation in content['annotations']:
            annotation['segmentation'] = [[]]

    change_json(own_set / 'annotations/instances_val.json', edit)
    cfg = config(own_set)
    with pytest.raises(DatasetError, match='no object has a mask'):
        check_datasets(cfg, 'val_dataloader')
    cfg.val_evaluator.metric = 'bbox'
    check_datasets(cfg, 'val_dataloader')


def test_a_subset_of_the_classes_only_in_validation_is_refused(own_set):
    cfg = config(own_set)
    cfg.val_dataloader.dataset.metainfo = dict(classes=['bag', 'coat'])
    with pytest.raises(DatasetError, match=r"val_dataloader has the classes 'bag', 'coat', but.*metainfo.classes to"):
        check_datasets(cfg, *BOTH)
    cfg.train_dataloader.dataset.metainfo = dict(classes=['bag', 'coat'])
    check_datasets(cfg, *BOTH)
    cfg.val_dataloader.dataset.metainfo = dict(classes=['bag'])
    cfg.val_evaluator.metric = 'proposal'  # it does not distinguish classes
    check_datasets(cfg, *BOTH)


def test_a_subset_of_the_classes_in_a_test_is_refused(own_set):
    cfg = config(own_set)
    cfg.train_dataloader.dataset.data_root = '/nowhere/'  # a test needs no training data
    cfg.model = dict(roi_head=dict(bbox_head=dict(num_classes=10)))
    check_datasets(cfg, 'test_dataloader')
    cfg.test_dataloader.dataset.metainfo = dict(classes=['bag', 'coat'])
    with pytest.raises(DatasetError, match=r"test_dataloader has the classes 'bag', 'coat', but train_dataloader"):
        check_datasets(cfg, 'test_dataloader')
    cfg.model.roi_head.bbox_head.num_classes = 2  # a model of other training data
    check_datasets(cfg, 'test_dataloader')


def test_files_with_another_order_of_categories_are_refused(own_set):
    change_json(own_set / 'annotations/instances_val.json', lambda content: content['categories'].reverse())
    with pytest.raises(DatasetError, match='the same categories in another order.*Sort the categories'):
        check_datasets(config(own_set), *BOTH)


def test_panoptic_files_are_not_taken_for_files_of_instances(own_set):
    """mmdet's CocoPanopticDataset inherits from CocoDataset, but its annotations have no boxes."""
    cfg = config(own_set)
    segment = dict(id=1, category_id=1, iscrowd=0, bbox=[0, 0, 9, 9], area=81)
    panoptic = [dict(image_id=1, file_name='000000.png', segments_info=[segment])]
    change_json(own_set / 'annotations/instances_val.json', lambda content: content.update(annotations=panoptic))
    with pytest.raises(DatasetError, match=r"annotations\[0\] lacks 'category_id', 'id'"):
        check_datasets(cfg, 'val_dataloader')
    cfg.val_evaluator.ann_file = f'{own_set}/annotations/instances_train.json'  # of instances, beside the panoptic file
    for kind in ('CocoPanopticDataset', 'mmdet.ADE20KPanopticDataset'):
        cfg.val_dataloader.dataset.type = kind
        check_evaluator(cfg, 'val')
        check_datasets(cfg, 'val_dataloader')


def test_what_a_run_does_with_the_annotations(monkeypatch):
    metric = dict(type='CocoMetric', ann_file='a.json', metric=['bbox', 'segm'])
    cfg = dict(val_evaluator=metric, test_evaluator=[dict(type='DumpDetResults'), dict(type='CocoMetric')])
    assert use_of(cfg, 'train_dataloader') == CocoUse()
    assert use_of(cfg, 'val_dataloader') == CocoUse(evaluated=True, masks=True)
    assert use_of(cfg, 'test_dataloader') == CocoUse(evaluated=True, reads_marks=False)
    monkeypatch.setenv('ADDP_MM_COMPAT', 'off')
    assert use_of(cfg, 'val_dataloader') == CocoUse(evaluated=True, masks=True, reads_marks=False)
    monkeypatch.undo()
    assert use_of(dict(val_evaluator=dict(type='VOCMetric')), 'val_dataloader') == CocoUse()
    only_written = dict(metric, format_only=True)
    nested = dict(val_evaluator=dict(type='Evaluator', metrics=[only_written]))
    assert use_of(nested, 'val_dataloader') == CocoUse(evaluated=True, masks=True, scored=False)
