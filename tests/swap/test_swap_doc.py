# Copyright (c) addp_mm contributors. Apache-2.0.
"""docs/swap.md: its table lists the tested cases, its example builds, its strides are correct."""

import re
from pathlib import Path

import pytest
import torch
from helpers.swap_table import table

DOC = (Path(__file__).parents[2] / 'docs/swap.md').read_text()


@pytest.mark.slow
def test_the_table_lists_the_tested_cases(tmp_path):
    made = table(tmp_path)
    assert len(made.splitlines()) - 2 >= 12
    assert made in DOC, (
        'docs/swap.md is behind the tests: put in what PYTHONPATH=tests python -m helpers.swap_table prints'
    )


def test_example_builds(tmp_path):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    example = re.search(r'```python\n(# my_detector\.py\n.*?)```', DOC, re.S).group(1)
    path = tmp_path / 'my_detector.py'
    path.write_text(example)
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.pop('init_cfg')['type'] == 'addp_mm.Pretrained'
    cfg.model.backbone.arch = dict(embed_dims=768, num_layers=12, num_heads=12, mlp_ratio=0.01)
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone, neck = (MODELS.build(cfg.model[part]) for part in ('backbone', 'neck'))
        maps = neck(backbone(torch.rand(1, 3, 128, 192)))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (256, 32, 48),
        (256, 16, 24),
        (256, 8, 12),
        (256, 4, 6),
        (256, 2, 3),
    ]


def test_strides_of_the_necks():
    """The lines ``| `SimpleFPN(…)` | strides | channels |`` hold for patches of 16 px."""
    from addp_mm.models.necks import FourScaleNeck, SimpleFPN

    lines = re.findall(r'^\| `(\w+)\((.*?)\)` \| ([\d, ]+) \| (.+?) \|$', DOC, re.M)
    assert len(lines) >= 4
    for kind, arguments, strides, channels in lines:
        if kind == 'SimpleFPN':
            neck, maps = eval(f'SimpleFPN(16, {arguments})', {'SimpleFPN': SimpleFPN}), [torch.rand(1, 16, 16, 16)]
        else:
            neck, maps = FourScaleNeck(16), [torch.rand(1, 16, 16, 16)] * 4
        outs = neck(maps)
        assert [256 // one.shape[2] for one in outs] == [int(one) for one in strides.split(',')]
        assert {one.shape[1] for one in outs} == {256 if channels == '`out_channels` (256)' else 16}
