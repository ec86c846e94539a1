# Copyright (c) addp_mm contributors. Apache-2.0.
"""The config in README.md builds: a Mask R-CNN without weights, and its optimizer."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    from mmengine.config import Config

    example = re.search(r"```python\n(_base_ = 'mmdet::.*?)```", README, re.S).group(1)
    path = tmp_path_factory.mktemp('readme') / 'own.py'
    path.write_text(example)
    return Config.fromfile(path)


def test_config_of_the_readme_builds_and_gives_five_maps(config):
    from mmdet.registry import MODELS
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    model = config.model.copy()
    assert model.backbone.pop('init_cfg')['type'] == 'addp_mm.Pretrained'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.no_grad():
        detector = MODELS.build(model).eval()
        maps = detector.extract_feat(torch.rand(1, 3, 250, 180))  # neither is a multiple of the patch
    assert type(detector).__name__ == 'MaskRCNN'
    assert len(detector.backbone.blocks) == 12
    assert [tuple(one.shape[1:]) for one in maps] == [
        (256, 64, 48),
        (256, 32, 24),
        (256, 16, 12),
        (256, 8, 6),
        (256, 4, 3),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        groups = build_optim_wrapper(detector, config.optim_wrapper).optimizer.param_groups
    rates = {round(group['lr'] / config.optim_wrapper.optimizer.lr, 6) for group in groups}
    assert rates == {round(0.7**depth, 6) for depth in range(14)}


def test_names_in_the_python_of_the_readme_exist():
    import addp_mm.apis

    imported = re.search(r'^from addp_mm.apis import (.+)$', README, re.M).group(1)
    assert all(hasattr(addp_mm.apis, name) for name in imported.split(', '))
    config, weights = re.search(r"load_model\('(.+?)',\s+'(.+?)'\)", README).groups()
    assert (ROOT / config).is_file()
    assert (ROOT / weights).is_file()
