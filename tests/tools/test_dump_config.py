# Copyright (c) addp_mm contributors. Apache-2.0.
"""A dump of a shipped config trains like the config; nothing in it is run."""

import itertools
import json

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from addp_mm.config import registered_types
from addp_mm.config.config_file import load_config
from addp_mm.config.data_config import write_data_config

_RUNS = itertools.count()
SMALL = """
_base_ = 'addp_mm::{name}'
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=2)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root={root!r}))
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
custom_hooks = []
randomness = dict(seed=0)
"""
NAMES = dict(
    det='det/mask-rcnn_addp-vit-nano-p8_from-scratch_1xb16-fp32-300i_fashion-scenes-64px',
    seg='seg/upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px',
    cls='cls/addp-vit-nano-p8_from-scratch_1xb32-fp32-300i_fashion-scenes-64px',
    pretrain='pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px',
)


@pytest.fixture(autouse=True)
def _limits_end(monkeypatch):
    monkeypatch.setattr(registered_types, '_is_limited', False)


@pytest.mark.slow
@pytest.mark.parametrize('task, suffix', [('det', 'json'), ('seg', 'yaml'), ('cls', 'json'), ('pretrain', 'yml')])
def test_a_dump_trains_like_its_config(small_scenes, tmp_path, task, suffix):
    config, dump = tmp_path / f'{task}.py', tmp_path / f'{task}.{suffix}'
    config.write_text(SMALL.format(name=NAMES[task], root=str(small_scenes)))
    write_data_config(load_config(str(config)), str(dump))
    config_weights, dump_weights = weights(config), weights(dump)
    assert config_weights.keys() == dump_weights.keys()
    assert [name for name, value in config_weights.items() if not torch.equal(value, dump_weights[name])] == []


def weights(config):
    cfg = load_config(str(config))
    cfg.work_dir = str(config.parent / f'trained_{config.suffix}')
    cfg.experiment_name = f'{config.name}_{next(_RUNS)}'
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        Runner.from_cfg(cfg).train()
    return torch.load(f'{cfg.work_dir}/iter_2.pth', weights_only=False)['state_dict']


def test_mistakes_are_one_line(run_tool, workplace, tmp_path):
    for arguments, words in [
        (['tiny.py', '--out', 'x.txt'], '--out x.txt must end in .json'),
        (['none.py', '--out', 'x.json'], 'none.py does not exist'),
        ([own_code(tmp_path), '--out', 'x.json'], "custom_hooks.0.type='evil.Hook' is not a registered class"),
    ]:
        finished = run_tool('misc/dump_config.py', *arguments)
        assert finished.status == 1
        assert finished.output.startswith('error: ')
        assert words in finished.output
    assert not (workplace / 'x.json').exists()


def own_code(folder):
    (folder / 'own.py').write_text("custom_hooks = [dict(type='evil.Hook')]\n")
    return folder / 'own.py'


def test_training_of_a_hostile_dump_runs_nothing(run_tool, workplace, tmp_path):
    finished = run_tool('misc/dump_config.py', 'tiny.py', '--out', tmp_path / 'tiny.json')
    assert finished.status == 0, finished.output
    values = json.loads((tmp_path / 'tiny.json').read_text())
    values['custom_hooks'] = [dict(type='os.mkdir', path=str(tmp_path / 'ran'))]
    (tmp_path / 'tiny.json').write_text(json.dumps(values))
    finished = run_tool('train.py', tmp_path / 'tiny.json', '--work-dir', tmp_path / 'work')
    assert finished.status == 1
    assert "custom_hooks.0.type='os.mkdir' is not a registered class" in finished.output
    assert 'Traceback' not in finished.output
    assert not (tmp_path / 'ran').exists()


def test_resuming_from_a_config_with_code_runs_nothing(run_tool, trained, tmp_path):
    checkpoint = torch.load(trained / 'epoch_2.pth', weights_only=False)
    checkpoint['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "ran")!r})\n'
    torch.save(checkpoint, tmp_path / 'x.pth')
    options = ['--cfg-options', 'train_cfg.max_epochs=3']
    finished = run_tool(
        'train.py', 'tiny.py', '--resume', tmp_path / 'x.pth', '--work-dir', tmp_path / 'work', *options
    )
    assert 'the config in the checkpoint or text is refused: line 1' in finished.output
    assert finished.status == 1
    assert 'Traceback' not in finished.output
    assert not (tmp_path / 'ran').exists()
