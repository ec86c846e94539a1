# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trial steps of tools/pretrain_from_folder.py: the batch that fits."""

import json
import sys

import pytest
import torch
from helpers.modules import module_with


class FakeTrial:
    """A step takes ``each`` bytes for every image."""

    optim_wrapper = type('Wrapper', (), dict(zero_grad=lambda self: None))()

    def __init__(self, each, limit=float('inf')):
        self.each, self.limit, self.steps, self.used = each, limit, [], 0

    def step(self, batch):
        self.steps.append(batch)
        self.used = 1000 + batch * self.each
        if self.used > self.limit:
            raise torch.OutOfMemoryError
        return 0.01


def test_batches_on_a_cpu_follow_from_the_memory_of_small_steps(monkeypatch):
    from addp_mm.own_data import trial_steps

    trial = FakeTrial(each=10)
    monkeypatch.setattr(trial_steps, 'resident_peak', lambda: trial.used)
    monkeypatch.setattr(trial_steps, 'reset_resident_peak', lambda: None)
    assert trial_steps.fit_on_cpu(trial, 64, limit=4000)[0] == 64
    trial.steps.clear()
    batch, seconds, peak = trial_steps.fit_on_cpu(trial, 1000, limit=4000)
    # 300 images fit; 250 images, which need 3,500 bytes, are an equal part of 1000
    assert batch == 250
    assert peak == 3500
    assert seconds == pytest.approx(0.01 * 250 / 4)
    assert max(trial.steps) == 4
    assert trial_steps.fit_on_cpu(FakeTrial(each=10), 1, limit=4000)[0] == 1
    assert trial_steps.fit_on_cpu(trial, 8, limit=10)[0] == 1


def test_batches_are_halved_on_a_gpu_until_they_fit():
    from addp_mm.own_data import trial_steps

    trial = FakeTrial(each=100, limit=10_000)
    memory = module_with(
        mem_get_info=lambda: (10_000, 20_000),
        memory_reserved=lambda: 0,
        reset_peak_memory_stats=lambda: None,
        max_memory_reserved=lambda: trial.used,
        empty_cache=lambda: None,
    )
    # 128 and 85 do not fit, 64 images need 7,400 of the 9,000 bytes that are allowed
    assert trial_steps.fit_on_gpu(trial, 128, memory)[0] == 64
    with pytest.raises(SystemExit, match='a single image does not fit'):
        trial_steps.fit_on_gpu(FakeTrial(each=20_000, limit=10_000), 4, memory)


@pytest.mark.parametrize('kind', ['mps', 'xpu'])
def test_a_batch_stays_where_memory_is_not_counted(kind, monkeypatch, capsys):
    from addp_mm.own_data import trial_steps

    trial = FakeTrial(each=100)
    trial.device = torch.device(kind)
    monkeypatch.setattr(trial_steps, 'memory_statistics', lambda device: None)
    assert trial_steps.try_batches(trial, 64, 1) == dict(batch=64, seconds=0.01, mib=0.0)
    assert trial.steps == [64]


def test_memory_that_a_control_group_allows(tmp_path):
    from addp_mm.own_data.trial_steps import available_memory

    (tmp_path / 'meminfo').write_text('MemTotal: 9000 kB\nMemAvailable:    5000 kB\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 5000 * 1024
    (tmp_path / 'memory.max').write_text('max\n')
    (tmp_path / 'memory.current').write_text('100\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 5000 * 1024
    (tmp_path / 'memory.max').write_text('4100\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 4000


def test_a_stage_whose_batch_is_given_is_built_and_takes_no_step(tmp_path, monkeypatch):
    from addp_mm.own_data import trial_steps

    (tmp_path / 'own_module_of_a_config.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trial_steps.Trial, 'step', lambda trial, batch: pytest.fail('a step was taken'))
    tokenizer = dict(
        type='addp_mm.VQTokenizer', base_channels=32, channel_mults=[1, 1], num_res_blocks=1, codebook_size=8
    )
    cfg = dict(
        default_scope='mmpretrain',
        custom_imports=dict(imports=['own_module_of_a_config']),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        model=dict(
            type='addp_mm.TokenizerPretrain',
            tokenizer=tokenizer,
            data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
        ),
    )
    spec, out = tmp_path / 'spec.json', tmp_path / 'out.json'

    def run():
        stage = dict(cfg=cfg, batch=None, shape=None)
        spec.write_text(json.dumps(dict(stages=dict(tokenizer=stage), processes=1)))
        trial_steps.main([str(spec), str(out)])

    run()
    found = json.loads(out.read_text())['tokenizer']
    assert list(found) == ['parameters']
    assert found['parameters'] > 0
    assert sys.modules.pop('own_module_of_a_config')
    tokenizer['base_channels'] = 31
    with pytest.raises(ValueError, match='32'):
        run()
