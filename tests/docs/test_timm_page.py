# Copyright (c) addp_mm contributors. Apache-2.0.
"""docs/timm_backbones.md: its table is current, its configs build, its export loads in timm."""

import importlib
import re
from pathlib import Path

import pytest
import timm
import torch
from helpers.timm_table import table
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from addp_mm.models.backbones import TimmBackbone

DOC = (Path(__file__).parents[2] / 'docs/timm_backbones.md').read_text()


def test_the_table_is_current():
    assert table() in DOC, 'put in what PYTHONPATH=tests python -m helpers.timm_table prints'


@pytest.mark.parametrize('name, scope, decay', [('my_detector', 'mmdet', 0.7), ('my_segmentor', 'mmseg', 0.8)])
def test_configs_build_and_give_the_maps_of_their_heads(name, scope, decay, tmp_path):
    example = re.search(rf'```python\n(# {name}\.py\n.*?)```', DOC, re.S).group(1)
    (tmp_path / 'own.py').write_text(example)
    cfg = Config.fromfile(tmp_path / 'own.py')
    models = importlib.import_module(f'{scope}.registry').MODELS
    importlib.import_module(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = models.build(cfg.model)
        maps = model.extract_feat(torch.empty(2, 3, 160, 96))
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    channels = [256] * 5 if scope == 'mmdet' else [768] * 4
    strides = [4, 8, 16, 32, 64][: len(channels)]
    assert [tuple(out.shape[1:]) for out in maps] == [
        (width, -(-160 // stride), -(-96 // stride)) for width, stride in zip(channels, strides, strict=True)
    ]
    rates = {round(group['lr'] / cfg.optim_wrapper.optimizer.lr, 6) for group in optimizer.param_groups}
    assert rates == {round(decay**depth, 6) for depth in range(14)}
    assert model.backbone.pretrained


def test_the_export_loads_in_timm(tmp_path, monkeypatch, capsys):
    small = dict(embed_dim=64, depth=1, num_heads=2)
    backbone = TimmBackbone('vit_base_patch16_dinov3', model_kwargs=small)
    weights = {f'backbone.{name}': weight for name, weight in backbone.state_dict().items()}
    (tmp_path / 'work_dirs/my_detector').mkdir(parents=True)
    torch.save(dict(state_dict=weights), tmp_path / 'work_dirs/my_detector/epoch_12.pth')
    monkeypatch.chdir(tmp_path)
    code = re.search(r'```python\n(import timm, torch\n.*?)```', DOC, re.S).group(1)
    scope = {}
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, **options: create(name, **options, **small))
    exec(code, scope)  # the code of the page
    assert capsys.readouterr().out == '<All keys matched successfully>\n'
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        (ours,) = backbone.eval()(image)
        theirs = scope['model'].eval().forward_features(image)[:, 5:]
    torch.testing.assert_close(ours.flatten(2).transpose(1, 2), theirs)
