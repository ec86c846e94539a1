# Copyright (c) addp_mm contributors. Apache-2.0.
"""The commands of README.md: a swap gives a Mask R-CNN that builds; the Python example runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    from addp_mm.__main__ import main
    from addp_mm.config.config_file import load_config

    command = re.search(r'^addp (swap mmdet::\S+ --backbone \S+ --out my_detector\.py)$', README, re.M).group(1)
    path = tmp_path_factory.mktemp('readme') / 'my_detector.py'
    main([*shlex.split(command)[:-1], str(path), '--no-trial'])
    return load_config(str(path))


def test_the_swap_of_the_readme_gives_five_maps_and_a_layer_decay(config):
    from mmdet.registry import MODELS
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    model = config.model.copy()
    assert model.backbone.pop('init_cfg')['type'] == 'addp_mm.Pretrained'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.no_grad():
        detector = MODELS.build(model).eval()
        maps = detector.extract_feat(torch.rand(1, 3, 256, 192))
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
    decay = config.optim_wrapper.paramwise_cfg.layer_decay_rate
    assert rates == {round(decay**depth, 6) for depth in range(14)}


def test_the_python_of_the_readme_runs_and_prints_one_line_a_component():
    code = re.search(r'```python\n(from addp_mm.apis .+?)```', README, re.S).group(1)
    code, _, published = code.partition('published = ')
    assert published.startswith('load_published(')
    code += 'assert [image.size for image in images] == [(64, 64)] * 4'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = (run.stdout + run.stderr).splitlines()
    assert [line for line in lines if 'Warning' not in line] == lines[:2]
    assert 'VQTokenizer from addp_mm://' in lines[0]
    assert 'MaskedTokenPredictor from addp_mm://' in lines[1]
