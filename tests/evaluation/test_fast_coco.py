# Copyright (c) addp_mm contributors. Apache-2.0.
"""FastCocoMetric against mmdet's CocoMetric, and its evaluator against pycocotools."""

import copy
import sys

import numpy as np
import pytest
from helpers.coco_scores import CLASSES, coco_content, predictions
from helpers.random_coco import SIZE, random_annotations, random_predictions

from addp_mm.checks.coco_use import coco_metrics, use_of
from addp_mm.checks.metric_names import metric_names

pytest.importorskip('faster_coco_eval')
pytest.importorskip('mmdet.evaluation')

from mmdet.evaluation import CocoMetric

from addp_mm.evaluation.fast_coco import FastCocoMetric


def coco_of(content):
    from mmdet.datasets.api_wrappers import COCO

    coco = COCO()
    coco.dataset = copy.deepcopy(content)
    coco.createIndex()
    return coco


def evaluated(kind, content, found, iou_type, use_cats=1):
    """An evaluator after all its steps, with mmdet's settings."""
    from pycocotools import mask

    truth = coco_of(content)
    results = copy.deepcopy(found)
    for one in results:
        if iou_type == 'bbox':
            del one['segmentation']
        else:
            del one['bbox']
            one['segmentation'] = mask.merge(mask.frPyObjects(one['segmentation'], SIZE, SIZE))
    evaluator = kind(truth, truth.loadRes(results), iou_type)
    evaluator.params.maxDets = [100, 300, 1000]
    evaluator.params.useCats = use_cats
    for step in (evaluator.evaluate, evaluator.accumulate, evaluator.summarize):
        step()
    return evaluator


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('use_cats', [1, 0])
@pytest.mark.parametrize('seed', range(3))
def test_all_numbers_equal_those_of_pycocotools(iou_type, use_cats, seed):
    from pycocotools.cocoeval import COCOeval

    from addp_mm.evaluation.fast_coco_eval import FastCOCOeval, coco_evaluator

    rng = np.random.default_rng(seed)
    content = random_annotations(rng, images=16, classes=5)
    found = random_predictions(rng, content)
    slow = evaluated(COCOeval, content, found, iou_type, use_cats)
    fast = evaluated(coco_evaluator, content, found, iou_type, use_cats)
    assert type(fast) is FastCOCOeval
    assert (slow.stats > 0).all()  # objects of each size, and crowds, count
    np.testing.assert_allclose(fast.stats, slow.stats, rtol=0, atol=1e-6)
    # AP of each class, size and threshold; the class without an object has -1
    for name in ('precision', 'recall'):
        np.testing.assert_allclose(fast.eval[name], slow.eval[name], rtol=0, atol=1e-6)
    assert fast.eval['precision'].shape == (10, 101, 5 if use_cats else 1, 4, 3)


def test_the_cases_of_the_random_set_matter():
    """Each changes the scores of pycocotools: else the test above would not see it."""
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    content = random_annotations(rng, images=16, classes=5)
    found = random_predictions(rng, content)
    stats = evaluated(COCOeval, content, found, 'bbox').stats
    no_crowds = copy.deepcopy(content)
    for one in no_crowds['annotations']:
        one['iscrowd'] = 0
    box_areas = copy.deepcopy(content)
    for one in box_areas['annotations']:
        one['area'] = one['bbox'][2] * one['bbox'][3]
    untied = [dict(one, score=one['score'] + 1e-6 * number) for number, one in enumerate(found)]
    for other in (
        evaluated(COCOeval, no_crowds, found, 'bbox').stats,
        evaluated(COCOeval, box_areas, found, 'bbox').stats,
        evaluated(COCOeval, content, untied, 'bbox').stats,
        evaluated(COCOeval, content, [one for one in found if one['image_id'] != 1], 'bbox').stats,
    ):
        assert np.abs(other - stats).max() > 1e-3


def scored(kind, content=None, path=None, **settings):
    metric = kind(ann_file=None if path is None else str(path), **settings)
    metric.dataset_meta = dict(classes=CLASSES)
    samples = predictions(content or coco_content())
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@pytest.fixture
def written(tmp_path):
    from mmengine.fileio import dump

    def write(content):
        dump(content, tmp_path / 'instances.json')
        return tmp_path / 'instances.json'

    return write


@pytest.mark.parametrize(
    'settings',
    [
        dict(metric=['bbox', 'segm'], classwise=True),
        dict(metric='proposal'),
        dict(metric='bbox', metric_items=['mAP', 'AR_m@1000'], iou_thrs=np.array([0.5, 0.75])),
        dict(metric='bbox', use_mp_eval=True),
    ],
    ids=lambda settings: str(settings['metric']),
)
def test_the_metric_gives_the_values_of_mmdets(written, settings):
    path = written(coco_content())
    slow = scored(CocoMetric, path=path, **{key: value for key, value in settings.items() if key != 'use_mp_eval'})
    fast = scored(FastCocoMetric, path=path, **settings)
    assert list(fast) == list(slow)
    assert fast == pytest.approx(slow, abs=1e-6, nan_ok=True)
    assert metric_names(FastCocoMetric(**settings)) == metric_names(CocoMetric(**settings))


def test_an_object_without_a_mask_is_left_out_of_the_masks(written):
    content = coco_content()
    content['annotations'][0]['no_mask'] = 1
    path = written(content)
    slow, fast = (scored(kind, path=path, metric=['bbox', 'segm']) for kind in (CocoMetric, FastCocoMetric))
    assert fast == slow
    assert fast['coco/segm_mAP'] != fast['coco/bbox_mAP']


@pytest.mark.parametrize('change', [lambda number: f'x{number}', float], ids=['str', 'float'])
def test_ids_that_cpp_does_not_take_are_left_to_pycocotools(written, capsys, change):
    content = coco_content()
    for one in (*content['images'], *content['categories']):
        one['id'] = change(one['id'])
    for one in content['annotations']:
        one.update(image_id=change(one['image_id']), category_id=change(one['category_id']))
    path = written(content)
    slow, fast = (scored(kind, content, path, metric='segm') for kind in (CocoMetric, FastCocoMetric))
    assert fast == slow
    assert 'ids of images or categories are not whole numbers' in capsys.readouterr().out


def test_without_the_package_pycocotools_computes_the_same(written, capsys, monkeypatch):
    path = written(coco_content())
    fast = scored(FastCocoMetric, path=path, metric=['bbox', 'segm'])
    assert 'pycocotools' not in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    monkeypatch.delitem(sys.modules, 'addp_mm.evaluation.fast_coco_eval')
    assert scored(FastCocoMetric, path=path, metric=['bbox', 'segm']) == fast
    assert capsys.readouterr().out.count('because faster-coco-eval cannot be imported') == 1


def test_mmdets_own_metric_stays_as_it_is(written):
    from mmdet.evaluation.metrics import coco_metric
    from pycocotools.cocoeval import COCOeval

    scored(FastCocoMetric, path=written(coco_content()))
    assert coco_metric.COCOeval is COCOeval


def test_a_config_names_it_without_importing_anything():
    """The registry imports the metric, and the checks treat it as mmdet's."""
    from mmengine.registry import METRICS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        assert METRICS.get('addp_mm.FastCocoMetric') is FastCocoMetric
        cfg = dict(val_evaluator=dict(type='addp_mm.FastCocoMetric', ann_file='a.json', metric=['bbox', 'segm']))
        assert list(coco_metrics(cfg, 'val_dataloader')) == [cfg['val_evaluator']]
        use = use_of(cfg, 'val_dataloader')
    assert (use.evaluated, use.masks, use.reads_marks) == (True, True, True)
