# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the tools put into a config: the latest checkpoint, and the scaled learning rate."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_training import build_runner
from mmengine.config import Config

from addp_mm.engine.runner_cfg import scale_by_optimizer_steps, set_auto_scale_lr, set_loader_timeouts, set_resume
from addp_mm.errors import ConfigError


def resumed_from(folder):
    cfg = Config(dict(work_dir=str(folder)))
    set_resume(cfg, 'auto')
    return cfg.load_from.rpartition('/')[2] if cfg.get('resume') else None


def test_the_newest_checkpoint_is_found_without_last_checkpoint(tmp_path, capsys):
    assert resumed_from(tmp_path) is None
    for name in ('best_accuracy_top1_iter_40.pth', 'best_accuracy_top1_iter_200.pth', 'notes_iter_900.txt'):
        torch.save({}, tmp_path / name)
    capsys.readouterr()
    assert resumed_from(tmp_path) == 'best_accuracy_top1_iter_200.pth'
    told = capsys.readouterr().out
    assert 'last_checkpoint' in told
    assert 'does not exist; training continues from' in told
    # complete checkpoints, with the state of the optimizer, come before the best one
    for name in ('iter_20.pth', 'iter_100.pth'):
        torch.save({}, tmp_path / name)
    assert resumed_from(tmp_path) == 'iter_100.pth'


def test_last_checkpoint_names_the_checkpoint(tmp_path):
    for name in ('iter_20.pth', 'iter_100.pth', 'best_mIoU_iter_100.pth'):
        torch.save({}, tmp_path / name)
    record = tmp_path / 'last_checkpoint'
    record.write_text(str(tmp_path / 'iter_20.pth'))
    assert resumed_from(tmp_path) == 'iter_20.pth'
    record.write_text('/moved/iter_20.pth')
    assert resumed_from(tmp_path) == 'iter_20.pth'
    record.write_text('')
    assert resumed_from(tmp_path) == 'iter_100.pth'
    # a later one may be of an earlier training in the folder
    record.write_text('/moved/iter_60.pth')
    assert resumed_from(tmp_path) == 'iter_20.pth'


SCALED = dict(base_batch_size=64)


def training(scaling, counts=4, **settings):
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=counts)
    return Config(dict(auto_scale_lr=scaling, optim_wrapper=wrapper, train_dataloader=dict(batch_size=16), **settings))


@pytest.mark.parametrize('wanted, scaling', [(True, SCALED), (False, dict(SCALED, enable=True))])
@pytest.mark.parametrize('processes, factor', [(1, 1.0), (2, 2.0)])
def test_the_batch_of_an_optimizer_step_scales_the_rate(tmp_path, wanted, scaling, processes, factor):
    cfg = training(dict(scaling))
    set_auto_scale_lr(cfg, wanted)
    assert cfg.auto_scale_lr == dict(SCALED, enable=True)  # this config is written to the work dir
    said = []
    runner = SimpleNamespace(
        cfg=cfg, auto_scale_lr=dict(cfg.auto_scale_lr), world_size=processes, logger=SimpleNamespace(info=said.append)
    )
    scale_by_optimizer_steps(runner)
    assert 16 * processes / runner.auto_scale_lr['base_batch_size'] == factor  # what mmengine computes
    total = 64 * processes
    assert f'batch_size 16 x accumulative_counts 4 x {processes} process(es) = {total} images' in said[0]
    assert f'base_batch_size is 64: the learning rate is multiplied by {factor:g}' in said[0]
    assert cfg.auto_scale_lr.base_batch_size == 64


def test_components_scale_by_the_batch_of_their_common_steps():
    cfg = training(dict(SCALED, enable=True))
    part = dict(optimizer=dict(type='AdamW', lr=1e-4), accumulative_counts=4)
    cfg.optim_wrapper = dict(
        constructor='addp_mm.ComponentsOptimWrapperConstructor', tokenizer=part, discriminator=part
    )
    set_auto_scale_lr(cfg, False)
    silent = SimpleNamespace(info=lambda text: None)
    runner = SimpleNamespace(cfg=cfg, auto_scale_lr=dict(cfg.auto_scale_lr), world_size=1, logger=silent)
    scale_by_optimizer_steps(runner)
    assert runner.auto_scale_lr['base_batch_size'] == 16


def test_a_runner_scales_its_groups_once(tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=4)
    runner = build_runner(tmp_path, 1, optim_wrapper=wrapper, auto_scale_lr=dict(base_batch_size=32, enable=True))
    runner.cfg = Config(dict(optim_wrapper=wrapper, train_dataloader=dict(batch_size=4)))
    scale_by_optimizer_steps(runner)
    runner.train()
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.01 * 16 / 32)


def test_a_rate_that_cannot_be_scaled_is_refused():
    with pytest.raises(ConfigError, match='auto_scale_lr.enable: the config does not contain the batch size'):
        set_auto_scale_lr(training(dict(enable=True)), False)
    with pytest.raises(ConfigError, match='--auto-scale-lr: the config does not contain the batch size'):
        set_auto_scale_lr(training(None), True)
    parts = {name: dict(optimizer={}, accumulative_counts=count) for name, count in (('a', 1), ('b', 2))}
    with pytest.raises(ConfigError, match=r'auto_scale_lr.enable: .* differ in accumulative_counts \(\[1, 2\]\)'):
        set_auto_scale_lr(Config(dict(auto_scale_lr=dict(SCALED, enable=True), optim_wrapper=parts)), False)
    with pytest.raises(ConfigError, match='DeepSpeed does not scale'):
        set_auto_scale_lr(training(dict(SCALED), strategy=dict(type='addp_mm.ZeroStrategy')), True)
    untouched = training(dict(SCALED, enable=False))
    set_auto_scale_lr(untouched, False)
    assert not untouched.auto_scale_lr.enable


def test_loaders_with_workers_do_not_wait_for_ever():
    loaders = dict(
        train_dataloader=dict(num_workers=2),
        val_dataloader=dict(num_workers=0),
        test_dataloader=dict(num_workers=1, timeout=5),
    )
    cfg = Config(dict(loaders, test_cfg=dict(bank_dataloader=dict(num_workers=1))))
    set_loader_timeouts(cfg)
    assert (cfg.train_dataloader.timeout, cfg.test_cfg.bank_dataloader.timeout) == (1800, 1800)
    assert 'timeout' not in cfg.val_dataloader
    assert cfg.test_dataloader.timeout == 5
