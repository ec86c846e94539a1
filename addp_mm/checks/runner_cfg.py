# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks of a whole config before a Runner is built from it: data, evaluators, weights."""

import os
from pathlib import Path

from mmengine.config import Config

from addp_mm.checks.class_folders import check_same_classes
from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.config.config_file import ConfigError
from addp_mm.config.paths import require_file
from addp_mm.config.type_names import type_name

DEEPSPEED_FILES = '*_model_states.pt'
_PRETRAINED = ('Pretrained', 'PretrainedInit')  # the second is mmengine's class of the first name
_CHECKPOINTS = ('.pth', '.pt', '.ckpt', '.safetensors')


def check_datasets(cfg: Config, *loaders: str) -> None:
    """Check that the folders and files of the data exist and are readable, before anything is built.

    Args:
        cfg: The whole config.
        *loaders: Dotted names of the loaders' configs; one that is not there is passed over. Class
            folders are compared with those of the training data as well.
    """
    datasets = {}
    for loader in dict.fromkeys(('train_dataloader', *loaders)):
        node = cfg
        for part in loader.split('.'):
            node = (node or {}).get(part)
        if node is not None:
            datasets[loader] = node.dataset
            if loader in loaders:
                check_dataset_cfg(node.dataset)
    check_same_classes(datasets)


def check_evaluator(cfg: Config, split: str) -> None:
    """Refuse a CocoMetric that reads another annotation file than the data set whose pictures it judges.

    Where both have the same image ids, mmdet would compute an AP against the wrong boxes.

    Args:
        cfg: The whole config.
        split: 'val' or 'test'.
    """
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    evaluators = cfg.get(f'{split}_evaluator') or []
    if not dataset.get('ann_file'):
        return
    read = os.path.join(dataset.get('data_root') or '', dataset['ann_file'])
    for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
        judged_by = metric.get('ann_file')
        if type_name(metric.get('type')) != 'CocoMetric' or not judged_by:
            continue
        if os.path.realpath(read) != os.path.realpath(judged_by):
            raise ConfigError(
                f'{split}_evaluator reads {judged_by} and {split}_dataloader {read}: the metric would be '
                f'that of other pictures. Set {split}_evaluator.ann_file={read}'
            )


def require_weights(cfg: Config) -> None:
    """Refuse to test without a checkpoint, but where nothing is trained and an ``init_cfg`` names the weights."""

    def loads(node) -> bool:
        if isinstance(node, dict):
            return type_name(node.get('type')) in _PRETRAINED or any(map(loads, node.values()))
        return isinstance(node, (list, tuple)) and any(map(loads, node))

    if cfg.get('train_cfg') is not None:
        raise ConfigError('the model of this config is trained first: name its checkpoint after the config')
    if not loads(cfg.model):
        raise ConfigError(
            'the model has no weights: name a checkpoint after the config, or give a part of the model '
            "an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
        )


def require_checkpoint(path: str, what: str = 'checkpoint') -> str:
    """Refuse a local checkpoint path that is no file; addresses such as ``https://…`` are left to the loader.

    Returns:
        The path, with ``~`` replaced by the home folder.
    """
    path = os.path.expanduser(path)
    if any(Path(path).glob(DEEPSPEED_FILES)):
        folder = Path(path).parent
        raise ConfigError(
            f'{what} {path} holds the shards of a DeepSpeed training, which it alone resumes from. Put '
            f'its weights together by\n    python {folder}/zero_to_fp32.py {folder} WHOLE --tag '
            f'{Path(path).name}\nand give the file in WHOLE'
        )
    if '://' not in path:
        require_file(path, what, _CHECKPOINTS)
    return path
