# Copyright (c) addp_mm contributors. Apache-2.0.
"""The algorithms that tune a generator on its trajectories."""

import math

import pytest
import torch
from helpers.tiny_alignment import generator_config, write_files
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from torch.utils.data import default_collate

from addp_mm.alignment.datasets import ChosenTrajectories, PreferencePairs
from addp_mm.alignment.likelihood_tuning import LikelihoodTuning
from addp_mm.alignment.preference_tuning import PreferenceTuning
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.trajectories import TrajectoryError
from addp_mm.models.layers.lora import adapters_off


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('alignment'))


def build(algorithm, files, lora=True, **options):
    config = generator_config(files) if lora else generator_config(files, None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = algorithm(config, files.trajectories, **options)
    model.init_weights()
    return model.train()


def batch_of(dataset, size=None):
    return default_collate([dataset[index] for index in range(size or len(dataset))])


def train(model, batch, steps=12):
    optimizer = OptimWrapper(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2))
    return [model.train_step(batch, optimizer) for _ in range(steps)]


@pytest.mark.parametrize('lora', [True, False])
def test_the_replayed_log_probs_are_those_that_the_sampler_saw(files, lora):
    model = build(LikelihoodTuning, files, lora)
    batch = batch_of(ChosenTrajectories(files.trajectories, files.selection))
    losses = model(**batch)
    stored = batch['trajectories']['log_probs']
    assert losses['loss'].item() == pytest.approx(-stored.mean().item(), abs=1e-5)
    assert losses['kl'].item() == pytest.approx(0, abs=1e-6)
    if lora:
        # trained adapters change the generator, and not the one that replays
        for name, parameter in model.generator.named_parameters():
            if 'lora_B' in name:
                torch.nn.init.normal_(parameter, std=0.5)
        assert model(**batch)['kl'] > 1e-4
        with adapters_off(model.generator):
            assert model(**batch)['kl'].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('lora', [True, False])
def test_right_trajectories_get_more_likely_and_the_frozen_generator_stays(files, lora):
    model = build(LikelihoodTuning, files, lora)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(('lora_' in name) if lora else name.startswith('generator.') for name in trained)
    before = {name: p.clone() for name, p in model.named_parameters() if name not in trained}
    logged = train(model, batch_of(ChosenTrajectories(files.trajectories, files.selection)))
    assert logged[-1]['loss'] < logged[0]['loss'] - 0.05
    assert logged[-1]['kl'] > 0
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not model.generator.training


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(weighted='rejected'),
        dict(weighted='rejected', weights='rank'),
        dict(weighted='both', loss=dict(form='token', beta=1.0)),
        dict(loss=dict(likelihood_weight=0.5, kl_weight=0.1)),
    ],
)
def test_chosen_trajectories_get_more_likely_than_rejected_ones(files, options):
    model = build(PreferenceTuning, files, **options)
    dataset = PreferencePairs(files.trajectories, files.selection, files.scores)
    logged = train(model, batch_of(dataset))
    first, last = logged[0], logged[-1]
    if not options.get('loss', {}).get('likelihood_weight'):
        assert first['loss'].item() == pytest.approx(math.log(2), abs=1e-4)
    assert first['reward_margin'].item() == pytest.approx(0, abs=1e-4)
    assert last['reward_margin'] > 0.05
    assert last['reward_accuracy'] == 1
    assert last['loss'] < first['loss']
    assert ('weight_on_top_tenth' in last) == ('weighted' in options)


def test_a_batch_of_one_equals_its_part_of_a_larger_batch(files):
    model = build(PreferenceTuning, files)
    dataset = PreferencePairs(files.trajectories, files.selection)
    for name, parameter in model.generator.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.2)
    whole = model(**batch_of(dataset))['loss']
    alone = torch.stack([model(**default_collate([dataset[index]]))['loss'] for index in range(len(dataset))])
    torch.testing.assert_close(alone.mean(), whole, rtol=1e-4, atol=1e-5)


def test_replayed_trajectories_stay_in_memory_and_give_the_same_losses(files, monkeypatch):
    plain, kept = build(PreferenceTuning, files), build(PreferenceTuning, files, cache_gib=0.1)
    few = build(PreferenceTuning, files, cache_gib=1e-9)
    replayed = []
    for model in (kept, few):
        original = model._cache._replay
        monkeypatch.setattr(model._cache, '_replay', lambda own, f=original, m=model: (replayed.append(m), f(own))[1])
    batch = batch_of(PreferencePairs(files.trajectories, files.selection))
    expected = train(plain, batch, 4)
    for model, calls in ((kept, 4), (few, 16)):  # two pairs; the second one has room for nothing
        found = train(model, batch, 4)
        torch.testing.assert_close(found[0]['loss'], expected[0]['loss'])
        torch.testing.assert_close(found[-1]['loss'], expected[-1]['loss'], atol=0.01, rtol=0)
        assert replayed.count(model) == calls
    with pytest.raises(ConfigError, match='cache_gib must be at least 0, got -1'):
        build(PreferenceTuning, files, cache_gib=-1)


def test_trajectories_of_another_model_are_refused(tmp_path):
    files = write_files(tmp_path, weights='0' * 64)
    with pytest.raises(TrajectoryError, match='another model or sampler: weights is'):
        build(LikelihoodTuning, files)


def test_what_is_missing_is_named(files, tmp_path):
    model = build(PreferenceTuning, files, weighted='rejected')
    with pytest.raises(ConfigError, match="weighted='rejected' needs the scores"):
        model(**batch_of(PreferencePairs(files.trajectories, files.selection)))
    with pytest.raises(ConfigError, match="weights must be 'score' or 'rank'"):
        build(PreferenceTuning, files, weights='order')
    with pytest.raises(ConfigError, match='weighted must be one of'):
        build(PreferenceTuning, files, weighted='all')
    with pytest.raises(ConfigError, match="which must be 'right' or 'wrong', got 'best'"):
        ChosenTrajectories(files.trajectories, files.selection, which='best')
    with pytest.raises(TrajectoryError, match='has no trajectories'):
        ChosenTrajectories(str(tmp_path), files.selection)
    with pytest.raises(TrajectoryError, match='cannot be read as scores'):
        PreferencePairs(files.trajectories, files.selection, str(tmp_path / 'none'))
    with pytest.raises(ValueError, match="mode 'loss' only"):
        model(mode='predict')
