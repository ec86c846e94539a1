# Copyright (c) addp_mm contributors. Apache-2.0.
"""The standard dataset classes of mmpretrain, mmdet and mmsegmentation read FashionScenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS, DefaultScope, init_default_scope
from PIL import Image

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator

BASES = Path(__file__).resolve().parents[3] / 'configs/_base_/datasets'


@pytest.fixture
def build(written_set, monkeypatch):
    """Build a dataset of a config base on the small set."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', DefaultScope._instance_dict.copy())

    def build_dataset(kind, scope, loader):
        init_default_scope(scope)
        cfg = Config.fromfile(BASES / f'fashion_scenes_{kind}.py')
        dataset = cfg[f'{loader}_dataloader'].dataset
        dataset.data_root = str(written_set)
        for transform in dataset.pipeline:
            if transform.type == 'RandomFlip':
                transform.prob = 0.0
        return DATASETS.build(dataset)

    return build_dataset


@pytest.fixture(scope='module')
def scenes(spec):
    """The scenes of the written files, generated again."""
    return {
        split: [
            SceneGenerator(load_garments(split), spec.image_size, split, spec.seed).scene(index)
            for index in range(getattr(spec, split))
        ]
        for split in ('train', 'val')
    }


def as_rgb(inputs):
    return inputs.numpy().transpose(1, 2, 0)[..., ::-1]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmpretrain_reads_scenes_without_labels(build, scenes, split):
    dataset = build('pretrain', 'mmpretrain', split)
    assert len(dataset) == len(scenes[split])
    for item, scene in zip(dataset, scenes[split], strict=True):
        inputs = item['inputs'][0] if isinstance(item['inputs'], list) else item['inputs']
        assert np.array_equal(as_rgb(inputs), scene.image)


def test_mmpretrain_numbers_the_class_folders_alike(build, spec):
    dataset = build('cls', 'mmpretrain', 'val')
    assert len(dataset) == spec.objects_val
    assert tuple(dataset.metainfo['classes']) == CLASSES
    generator = SceneGenerator(load_garments('val'), spec.image_size, 'val', spec.seed)
    for index in range(10):
        item = dataset[index]  # one image for each class, folders in alphabetical order
        assert item['data_samples'].gt_label.item() == index
        assert np.array_equal(as_rgb(item['inputs']), generator.object_image(index).image)


@pytest.mark.slow
@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_boxes_and_masks(build, scenes, split):
    dataset = build('det', 'mmdet', split)
    assert len(dataset) == len(scenes[split])
    for item, scene in zip(dataset, scenes[split], strict=True):
        instances = item['data_samples'].gt_instances
        assert np.array_equal(as_rgb(item['inputs']), scene.image)
        assert instances.labels.tolist() == scene.labels.tolist()
        assert np.array_equal(instances.masks.masks.astype(bool), scene.masks())
        assert torch.equal(instances.masks.get_bboxes(type(instances.bboxes)).tensor, instances.bboxes.tensor)


@pytest.mark.slow
@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmseg_reads_label_maps(build, scenes, split):
    dataset = build('seg', 'mmseg', split)
    assert len(dataset) == len(scenes[split])
    assert tuple(dataset.metainfo['classes']) == ('background', *CLASSES)
    for item, scene in zip(dataset, scenes[split], strict=True):
        labels = item['data_samples'].gt_sem_seg.data.numpy()[0]
        assert np.array_equal(as_rgb(item['inputs']), scene.image)
        assert np.array_equal(labels, scene.label_map().astype(int) - 1)


@pytest.mark.slow
def test_true_instances_score_full_marks_with_coco_metric(build, written_set):
    dataset = build('det', 'mmdet', 'val')
    metric = METRICS.build(
        dict(type='CocoMetric', ann_file=str(written_set / 'annotations/instances_val.json'), metric=['bbox', 'segm'])
    )
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        truth = sample.gt_instances
        sample.pred_instances = type(truth)(
            bboxes=truth.bboxes.tensor,
            labels=truth.labels,
            scores=torch.ones(len(truth)),
            masks=torch.from_numpy(truth.masks.masks).bool(),
        )
        metric.process(pseudo_collate([item]), [sample.to_dict()])
    scores = metric.evaluate(len(dataset))
    assert scores['coco/bbox_mAP'] == pytest.approx(1, abs=1e-3)
    assert scores['coco/segm_mAP'] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('kind, classes', [('cls', CLASSES), ('det', CLASSES), ('seg', ('background', *CLASSES))])
def test_config_bases_name_the_classes_in_order(kind, classes):
    cfg = Config.fromfile(BASES / f'fashion_scenes_{kind}.py')
    for loader in ('train', 'val', 'test'):
        assert tuple(cfg[f'{loader}_dataloader'].dataset.metainfo.classes) == classes


def test_label_maps_hold_the_numbers_of_ade20k(written_set):
    values = {value for path in (written_set / 'labels').rglob('*.png') for value in np.unique(Image.open(path))}
    assert 1 in values
    assert values <= set(range(1, 12))
