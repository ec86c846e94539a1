# Copyright (c) addp_mm contributors. Apache-2.0.
"""The config of a trial writes into a temporary folder and loads nothing."""

from pathlib import Path

import pytest
from mmengine.config import Config

from addp_mm.engine.trial_runner import check_strategy, remove_downloads, trial_config
from addp_mm.errors import ConfigError


def config(**changes):
    model = dict(type='A', backbone=dict(type='TIMMBackbone', pretrained=True), heads=[dict(pretrained=True)])
    loader = dict(dataset=dict(type='addp_mm.ImageFiles', root='images'))
    return Config(
        {
            **dict(model=model, train_dataloader=loader, load_from='a.pth', resume=True, work_dir='mine'),
            **dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=[dict(type='addp_mm.PeakSignalNoiseRatio')]),
            **changes,
        }
    )


def test_nothing_is_loaded_and_nothing_remains():
    cfg = config(strategy=dict(type='DDPStrategy'))
    with trial_config(cfg) as trial:
        folder = Path(trial.work_dir)
        assert folder.is_dir()
        assert trial.train_dataloader.dataset.work_dir == str(folder)
        (folder / 'log').touch()
        assert (trial.load_from, trial.resume, trial.launcher) == (None, False, 'none')
        trial.model.backbone.pretrained = False
        assert 'strategy' not in trial
        assert trial.val_evaluator
    assert not folder.exists()
    assert cfg.model.backbone.pretrained is True
    assert (cfg.work_dir, cfg.load_from) == ('mine', 'a.pth')
    assert 'work_dir' not in cfg.train_dataloader.dataset


@pytest.mark.parametrize('kind', ['addp_mm.ReconstructionFID', 'LearnedPerceptualSimilarity'])
@pytest.mark.parametrize('as_list', [False, True])
def test_a_metric_with_a_network_is_left_out(kind, as_list):
    metric = dict(type=kind)
    cfg = config(model=dict(), val_evaluator=[metric] if as_list else metric)
    (note,) = remove_downloads(cfg)
    assert note.startswith('the validation is not checked')
    assert (cfg.val_dataloader, cfg.val_cfg, cfg.val_evaluator) == (None, None, None)


def test_weights_that_would_be_downloaded_are_left_out():
    cfg = config()
    far = dict(type='addp_mm.Pretrained', checkpoint='hf://a/b.pth')
    cfg.model.update(
        pretrained='open-mmlab://resnet50', neck=dict(init_cfg=far), tail=dict(init_cfg=[far, dict(type='Kaiming')])
    )
    (note,) = remove_downloads(cfg)
    assert note.endswith('hf://a/b.pth, open-mmlab://resnet50, pretrained=True')
    assert cfg.model.backbone.pretrained is False
    assert cfg.model.heads[0].pretrained is False
    assert cfg.model.pretrained is None
    assert cfg.model.neck.init_cfg is None
    assert cfg.model.tail.init_cfg == [dict(type='Kaiming')]


def test_local_weights_and_other_metrics_stay():
    near = [dict(type='Pretrained', checkpoint=path) for path in ('addp_mm://b.safetensors', 'dir/b.pth')]
    for cfg in (Config({}), config(model=dict(init_cfg=near[0], head=dict(init_cfg=near[1], pretrained='x.pth')))):
        before = cfg.to_dict()
        assert remove_downloads(cfg) == []
        assert cfg.to_dict() == before


def test_a_strategy_is_checked_without_its_launcher():
    check_strategy(config())
    check_strategy(config(strategy=dict(type='DDPStrategy')))
    check_strategy(config(strategy=dict(type='SingleDeviceStrategy')))
    with pytest.raises(ConfigError, match='no strategy'):
        check_strategy(config(strategy=dict(type='DPStrategy')))
