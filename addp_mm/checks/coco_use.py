# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a run does with the COCO annotations of a data loader."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.registry import DATASETS, METRICS

from addp_mm.checks.type_lookup import is_kind
from addp_mm.compat import is_off


class CocoUse(NamedTuple):
    """What a run does with an annotation file.

    Attributes:
        evaluated: Whether a CocoMetric compares predictions with it.
        masks: Whether that metric also compares masks.
        reads_marks: Whether the metric knows the mark of objects without a mask. It does not if it
            takes the objects from the dataset, or without the patches of addp_mm.
        scored: Whether the metric computes numbers. Otherwise it only writes the predictions.
    """

    evaluated: bool = False
    masks: bool = False
    reads_marks: bool = True
    scored: bool = True


def reads_coco(cfg: Mapping) -> bool:
    """Whether a dataset config reads files of instances with the code of mmdet's CocoDataset.

    Its subclass for panoptic data reads another format.
    """
    return all(
        is_kind(cfg.get('type'), DATASETS, 'mmdet.datasets', 'CocoDataset', keeping=part)
        for part in ('load_data_list', 'COCOAPI')
    )


def use_of(cfg: Mapping, loader: str) -> CocoUse:
    """What a run does with the annotations of a loader.

    Args:
        cfg: The whole config.
        loader: Name of the loader, such as 'val_dataloader'.
    """
    metrics = list(coco_metrics(cfg, loader))
    if not metrics:
        return CocoUse()
    return CocoUse(
        evaluated=True,
        masks=any('segm' in _kinds(metric) for metric in metrics),
        reads_marks=not is_off() and all(metric.get('ann_file') for metric in metrics),
        scored=not all(metric.get('format_only') for metric in metrics),
    )


def coco_metrics(cfg: Mapping, loader: str) -> Iterator[Any]:
    """The configs of the CocoMetrics that evaluate the predictions on a loader."""
    for metric in evaluators(cfg.get(f'{loader.removesuffix("_dataloader")}_evaluator')):
        if is_kind(metric.get('type'), METRICS, 'mmdet.evaluation', 'CocoMetric'):
            yield metric


def evaluators(part: Any) -> Iterator[Any]:
    """All metrics inside the config of an evaluator."""
    if isinstance(part, Mapping):
        if 'metrics' in part:
            yield from evaluators(part['metrics'])
        else:
            yield part
    for inner in part if isinstance(part, list | tuple) else ():
        yield from evaluators(inner)


def counts_classes(cfg: Mapping, loader: str) -> bool:
    """Whether a CocoMetric of a loader distinguishes classes."""
    return any(set(_kinds(metric)) & {'bbox', 'segm'} for metric in coco_metrics(cfg, loader))


def _kinds(metric: Mapping) -> list[str]:
    kinds = metric.get('metric', 'bbox')
    return [kinds] if isinstance(kinds, str) else list(kinds)
