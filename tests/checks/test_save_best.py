# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of metrics that hooks read, before the validation that computes them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_training import build_runner
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from addp_mm.checks.metric_names import metric_names
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.checks.save_best import check_rules, check_save_best
from addp_mm.errors import ConfigError
from addp_mm.evaluation import CodebookUsage, PeakSignalNoiseRatio, StructuralSimilarity


def check(metrics, save_best, **options):
    runner = SimpleNamespace(
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=metrics)),
        hooks=[CheckpointHook(save_best=save_best, **options)],
        param_schedulers=None,
    )
    check_save_best(runner)


def classified(metric, samples=4):
    from mmpretrain.structures import DataSample

    for label in range(samples):
        sample = DataSample().set_gt_label(label).set_pred_score(torch.eye(10)[label])
        metric.process(None, [sample.to_dict()])
    return metric.evaluate(samples)


@pytest.mark.parametrize('options', [{}, dict(topk=(1, 5)), dict(topk=2, thrs=(0.1, None)), dict(prefix='own')])
def test_the_names_of_accuracy_are_those_that_it_gives(options):
    from mmpretrain.evaluation import Accuracy

    metric = Accuracy(**options)
    assert metric_names(metric) == list(classified(metric))


@pytest.mark.parametrize(
    'options',
    [{}, dict(average='micro'), dict(average=None), dict(thrs=(0.1, None)), dict(items=('recall', 'support'))],
)
def test_the_names_of_single_label_metrics_are_those_that_they_give(options):
    from mmpretrain.evaluation import SingleLabelMetric

    metric = SingleLabelMetric(**options)
    assert metric_names(metric) == list(classified(metric))


@pytest.mark.parametrize('kinds', [['mIoU'], ['mDice', 'mFscore'], ['mIoU', 'mDice', 'mFscore']])
def test_the_names_of_segmentation_metrics_are_those_that_they_give(kinds):
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric(iou_metrics=kinds)
    metric.dataset_meta = dict(classes=('a', 'b'))
    labels = torch.tensor([[[0, 1], [1, 0]]])
    metric.process(None, [dict(pred_sem_seg=dict(data=labels), gt_sem_seg=dict(data=labels))])
    assert metric_names(metric) == list(metric.evaluate(1))


@pytest.mark.parametrize('options', [dict(metric='bbox'), dict(metric=['bbox', 'proposal'], metric_items=None)])
def test_the_names_of_detection_metrics_are_those_that_they_give(options):
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric(**options)
    metric.dataset_meta = dict(classes=('a',))
    box = np.array([[0.0, 0.0, 8.0, 8.0]])
    sample = dict(
        img_id=0,
        ori_shape=(16, 16),
        pred_instances=dict(bboxes=torch.tensor(box), scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.int64)),
        instances=[dict(bbox=box[0].tolist(), bbox_label=0, ignore_flag=0)],
    )
    metric.process(None, [sample])
    assert metric_names(metric) == list(metric.evaluate(1))


def test_the_names_of_reconstruction_metrics():
    assert metric_names(PeakSignalNoiseRatio()) == ['reconstruction/psnr']
    assert metric_names(StructuralSimilarity()) == ['reconstruction/ssim']
    assert metric_names(CodebookUsage(8, prefix='own')) == ['own/usage', 'own/perplexity']


@pytest.mark.parametrize(
    'name, words',
    [
        (
            'accuracy/top5',
            r"save_best='accuracy/top5' is not a metric.*called accuracy/top1; did you mean accuracy/top1\? Set",
        ),
        ('top1', r'called accuracy/top1\. Set'),
        ('acc/top1', 'called accuracy/top1'),
        ('single-label/recall', 'called accuracy/top1'),
    ],
)
def test_a_metric_that_the_classifier_does_not_give(name, words):
    from mmpretrain.evaluation import Accuracy

    with pytest.raises(PreflightError, match=words):
        check([Accuracy(topk=(1,))], name, rule='greater')
    check([Accuracy(topk=(1, 5))], 'accuracy/top5')
    check([Accuracy()], 'auto')


def test_a_metric_that_the_detector_or_segmentor_does_not_give():
    from mmdet.evaluation import CocoMetric
    from mmseg.evaluation import IoUMetric

    with pytest.raises(PreflightError, match='coco/segm_mAP.*called coco/bbox_mAP, .*did you mean'):
        check([CocoMetric(metric='bbox')], 'coco/segm_mAP')
    check([CocoMetric(metric=['bbox', 'segm'])], 'coco/segm_mAP')
    check([CocoMetric(classwise=True)], 'coco/coat_precision')
    for wrong in ('iou/mIoU', 'miou', 'mDice'):
        with pytest.raises(PreflightError, match='called aAcc, mIoU, mAcc'):
            check([IoUMetric()], wrong, rule='greater')
    check([IoUMetric()], 'mIoU')
    with pytest.raises(PreflightError, match='called seg/aAcc'):
        check([IoUMetric(prefix='seg')], 'mIoU')


def test_metrics_of_unknown_classes_are_known_by_their_prefix():
    unknown, bare = SimpleNamespace(prefix='own'), SimpleNamespace(prefix=None)
    check([unknown], 'own/anything', rule='less')
    check([unknown, bare], 'anything', rule='less')
    with pytest.raises(PreflightError, match='called own/…, reconstruction/psnr'):
        check([unknown, PeakSignalNoiseRatio()], 'reconstruction/ssim', rule='greater')


def test_auto_needs_a_rule_for_a_metric_of_unknown_direction():
    with pytest.raises(PreflightError, match=r"save_best='auto' means reconstruction/psnr.*rule=greater or less"):
        check([PeakSignalNoiseRatio()], 'auto')
    check([PeakSignalNoiseRatio()], 'auto', rule='greater')
    check([SimpleNamespace(prefix='own')], 'auto')


def test_save_best_needs_a_rule_for_a_metric_of_unknown_direction():
    def config(**options):
        return Config(dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', **options))))

    with pytest.raises(
        ConfigError, match='save_best=.generation/fid.*Set default_hooks.checkpoint.rule=greater or less'
    ):
        check_rules(config(save_best='generation/fid'))
    with pytest.raises(ConfigError, match='default_hooks.checkpoint: rule must be greater, less'):
        check_rules(config(save_best='generation/fid', rule='smaller'))
    with pytest.raises(ConfigError, match='default_hooks.checkpoint: Only support one'):
        check_rules(config(save_best=['auto', 'mIoU']))
    for right in (dict(save_best='generation/fid', rule='less'), dict(save_best='mIoU'), dict(save_best='auto'), {}):
        check_rules(config(**right))


def test_a_plateau_schedule_reads_a_metric(tmp_path):
    def runner(monitor, name):
        schedules = [dict(type='ReduceOnPlateauLR', monitor=monitor, rule='greater')]
        built = build_runner(tmp_path / name, 1, by_epoch=True, schedules=schedules, scores=(0.5,))
        built.train()
        return built

    check_save_best(runner('tiny/acc', 'a'))
    built = runner('tiny/acc', 'b')
    built.param_schedulers[0].monitor = 'mIoU'
    with pytest.raises(PreflightError, match=r"monitor='mIoU' of ReduceOnPlateau.*called tiny/…. Set monitor"):
        check_save_best(built)


def test_save_best_without_validation_is_said(tmp_path):
    built = build_runner(tmp_path, 1, checkpoint=dict(save_best='mIoU'))
    said = []
    built.logger.warning = said.append
    built.train()
    check_save_best(built)
    assert ["save_best=['mIoU'] has no effect" in one for one in said if 'save_best' in one] == [True]
