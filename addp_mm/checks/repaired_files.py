# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write repaired COCO files, and let a config read them."""

import os
from collections.abc import Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import METRICS

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.checks.coco import CocoFile
from addp_mm.checks.coco_reading import write_coco
from addp_mm.checks.coco_repairs import repairs_in_words
from addp_mm.checks.coco_use import coco_metrics, evaluators
from addp_mm.checks.type_lookup import is_kind


def use_repaired_files(cfg: Any, loader: str, files: Sequence[tuple[Any, CocoFile]], folder: str | Path | None) -> None:
    """Write the repaired annotation files of a loader, and log what was repaired.

    The datasets, and the metrics that read the same file, then name the copy, so that both read the
    same records. Files without repairs are left as they are. All processes write the same content.

    Args:
        cfg: The whole config.
        loader: Name of the loader.
        files: Its datasets of COCO annotations and their files; None as the dataset of a file that
            only a metric reads.
        folder: Folder for the copies; None writes nothing.
    """
    metrics = list(evaluators(cfg.get(f'{loader.removesuffix("_dataloader")}_evaluator')))
    for number, (dataset, file) in enumerate(files):
        if file.content is None:
            continue
        words = f'{file.path}: repaired: {repairs_in_words(file.repairs)}.'
        if folder is not None:
            split = loader.removesuffix('_dataloader') + (str(number) if len(files) > 1 else '')
            copy = Path(folder).absolute() / f'{split}_{file.path.name}'
            with atomic_path(copy) as partial:
                write_coco(partial, file.content)
            words += f' Training and test use a repaired copy, annotations/{copy.name} in the work dir.'
            for metric in metrics:
                if metric.get('ann_file') and os.path.realpath(metric['ann_file']) == os.path.realpath(file.path):
                    metric['ann_file'] = str(copy)
            if dataset is not None:
                dataset['ann_file'] = str(copy)
        print_log(words, 'current', WARNING)


def other_files(cfg: Any, loader: str, files: Sequence[tuple[Any, CocoFile]]) -> list[Path]:
    """Annotation files that a CocoMetric reads, and no dataset of its loader.

    Args:
        cfg: The whole config.
        loader: Name of the loader.
        files: Its datasets of COCO annotations and their files.
    """
    known = {os.path.realpath(file.path) for _, file in files}
    named = [
        str(metric['ann_file'])
        for metric in coco_metrics(cfg, loader)
        # a metric with other scores, such as that of LVIS, may read another format
        if metric.get('ann_file')
        and is_kind(metric['type'], METRICS, 'mmdet.evaluation', 'CocoMetric', keeping='compute_metrics')
    ]
    return [Path(name) for name in dict.fromkeys(named) if '://' not in name and os.path.realpath(name) not in known]
