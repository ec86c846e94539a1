# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of the values that a validation computes, before it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

_BOX_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_PROPOSAL_ITEMS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
_SEGMENTATION = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'), mFscore=('mFscore', 'mPrecision', 'mRecall'))


def metric_names(metric: Any) -> list[str] | None:
    """Names of the values of a metric, with its prefix, in order.

    Args:
        metric: A built metric.

    Returns:
        The names; None if they are not known before the validation.
    """
    for module, name, names_of in _KNOWN:
        known = getattr(sys.modules.get(module), name, None)
        # a subclass may compute other values
        if known is not None and isinstance(metric, known) and type(metric).compute_metrics is known.compute_metrics:
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            return [prefix + value for value in names_of(metric)]
    return None


def is_given(name: str, metrics: Iterable[Any]) -> bool:
    """Whether one of several built metrics gives, or may give, a value of this name.

    Args:
        name: The name, such as 'accuracy/top1'.
        metrics: The metrics of an evaluator.
    """
    for metric in metrics:
        prefix, _, value = name.rpartition('/') if metric.prefix else ('', '', name)
        names = metric_names(metric)
        if prefix != (metric.prefix or ''):
            continue
        if names is None or name in names or getattr(metric, 'classwise', False) and value.endswith('_precision'):
            return True
    return False


def described(metrics: Iterable[Any]) -> list[str]:
    """Names of the values of several metrics; 'PREFIX/…' for a metric whose names are not known."""
    names: list[str] = []
    for metric in metrics:
        known = metric_names(metric)
        names += [f'{metric.prefix}/…'] if known is None else known
    return list(dict.fromkeys(names))


def _thresholds(metric: Any) -> list[str]:
    """Ends of the names for each threshold of the score; a single threshold has none."""
    if len(metric.thrs) == 1:
        return ['']
    return ['_no-thr' if threshold is None else f'_thr-{threshold:.2f}' for threshold in metric.thrs]


def _accuracy(metric: Any) -> list[str]:
    return [f'top{k}{end}' for k in metric.topk for end in _thresholds(metric)]


def _single_label(metric: Any) -> list[str]:
    # lists by class cannot be compared, and have no name for save_best
    average = {'micro': '_micro', 'macro': '', None: '_classwise'}.get(metric.average, '')
    items = [item for item in ('precision', 'recall', 'f1-score', 'support') if item in metric.items]
    return [f'{item}{end}{average}' for end in _thresholds(metric) for item in items]


def _coco(metric: Any) -> list[str]:
    if metric.format_only:
        return []
    names = []
    for kind in metric.metrics:
        if kind == 'proposal_fast':
            names += [f'AR@{count}' for count in metric.proposal_nums]
        elif kind == 'proposal':
            names += metric.metric_items or _PROPOSAL_ITEMS
        else:
            names += [f'{kind}_{item}' for item in metric.metric_items or _BOX_ITEMS]
    return names


def _segmentation(metric: Any) -> list[str]:
    if metric.format_only:
        return []
    kinds = [metric.metrics] if isinstance(metric.metrics, str) else metric.metrics
    return list(dict.fromkeys(['aAcc', *(name for kind in kinds for name in _SEGMENTATION.get(kind, ()))]))


_Names = Callable[[Any], list[str]]
_KNOWN: tuple[tuple[str, str, _Names], ...] = (
    ('mmpretrain.evaluation', 'Accuracy', _accuracy),
    ('mmpretrain.evaluation', 'SingleLabelMetric', _single_label),
    ('mmdet.evaluation', 'CocoMetric', _coco),
    ('mmseg.evaluation', 'IoUMetric', _segmentation),
    ('addp_mm.evaluation', 'PeakSignalNoiseRatio', lambda _: ['psnr']),
    ('addp_mm.evaluation', 'StructuralSimilarity', lambda _: ['ssim']),
    ('addp_mm.evaluation', 'LearnedPerceptualSimilarity', lambda metric: [f'lpips[{metric.net}]']),
    ('addp_mm.evaluation', 'CodebookUsage', lambda _: ['usage', 'perplexity']),
    ('addp_mm.evaluation', 'ReconstructionFID', lambda metric: [metric.extractor.key('rfid')]),
    ('addp_mm.evaluation', 'GenerationMetric', lambda metric: metric.names),
)
