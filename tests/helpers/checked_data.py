# Copyright (c) addp_mm contributors. Apache-2.0.
"""Dataset configs of the recipes on the data of a test, and the expected messages."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.datasets import DatasetError

BASES = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


def dataset_cfg(kind, root, loader='train'):
    """The dataset config of a FashionScenes recipe, on the data in ``root``."""
    dataset = Config.fromfile(BASES / f'fashion_scenes_{kind}.py')[f'{loader}_dataloader'].dataset
    dataset.data_root = str(root)
    return dataset


def refused(cfg, *texts):
    """The check refuses the config with a message that contains every text."""
    with pytest.raises(DatasetError) as caught:
        check_dataset_cfg(cfg)
    for text in texts:
        assert str(text) in str(caught.value)


def change_json(path, change):
    """Rewrite a JSON file after ``change`` has changed its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def annotations_loader(cfg):
    """The config of LoadAnnotations in a pipeline; a change of it changes the pipeline."""
    return next(one for one in cfg.pipeline if one['type'] == 'LoadAnnotations')
