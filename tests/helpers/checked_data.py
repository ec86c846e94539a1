# Copyright (c) addp_mm contributors. Apache-2.0.
"""Dataset configs of the recipes on data of a test, and how a check refuses them."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from addp_mm.checks.datasets import check_dataset_cfg
from addp_mm.datasets import DatasetError

BASES = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


def dataset_cfg(kind, root, loader='train'):
    dataset = Config.fromfile(BASES / f'fashion_scenes_{kind}.py')[f'{loader}_dataloader'].dataset
    dataset.data_root = str(root)
    return dataset


def refused(cfg, *texts):
    with pytest.raises(DatasetError) as caught:
        check_dataset_cfg(cfg)
    for text in texts:
        assert str(text) in str(caught.value)


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
