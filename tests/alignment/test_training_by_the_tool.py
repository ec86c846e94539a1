# Copyright (c) addp_mm contributors. Apache-2.0.
"""Both algorithms trained by tools/train.py; killed and resumed, they end with the same weights."""

import pytest
import torch
from helpers.interrupted import STATUS, assert_equal_trainings, choose, in_a_fork, logged, run_train
from helpers.tiny_alignment import generator_config, write_files

from addp_mm.apis import load_model
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.models.layers.lora_weights import is_adapter, merge_adapters

pytestmark = pytest.mark.slow
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['addp_mm', 'helpers.kill_at'])
model = {model!r}
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True, collate_fn=dict(type='default_collate'),
    sampler=dict(type='addp_mm.ResumableInfiniteSampler'), dataset={dataset!r})
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6)
default_hooks = dict(
    checkpoint=dict(type='addp_mm.CheckpointHook', by_epoch=False, interval=3),
    logger=dict(type='LoggerHook', interval=1), random_state=dict(type='addp_mm.RandomStateHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
custom_hooks = {hooks!r}
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp('alignment'))


def settings(kind, files):
    """Model and data set: the positive model with all weights, or cDPO with adapters."""
    about = dict(trajectories=files.trajectories, selection=files.selection)
    if kind == 'likelihood':
        generator = generator_config(files, lora=None)
        model = dict(type='addp_mm.LikelihoodTuning', generator=generator, trajectories=files.trajectories)
        return model, dict(type='addp_mm.ChosenTrajectories', which='right', **about)
    model = dict(
        type='addp_mm.PreferenceTuning',
        generator=generator_config(files),
        trajectories=files.trajectories,
        weighted='rejected',
        cache_gib=0.1,
    )
    return model, dict(type='addp_mm.PreferencePairs', scores=files.scores, **about)


def train(kind, files, folder, name, *options, kill_at=None):
    model, dataset = settings(kind, files)
    hooks = [] if kill_at is None else [dict(type='KillAt', **kill_at)]
    config, log = folder / f'{name}.py', folder / f'{name}.log'
    config.write_text(CONFIG.format(model=model, dataset=dataset, hooks=hooks))
    return in_a_fork(log, run_train, config, '--work-dir', folder / name.split('_')[0], *options)


@pytest.mark.parametrize('kind', ['likelihood', 'preference'])
def test_a_stopped_training_equals_an_uninterrupted_one(kind, files, tmp_path):
    kill_at = choose(kind, 6)
    status, output = train(kind, files, tmp_path, 'whole')
    assert status == 0, output
    status, output = train(kind, files, tmp_path, 'parts_killed', kill_at=kill_at)
    assert status == STATUS[kill_at['signal']], output
    status, output = train(kind, files, tmp_path, 'parts_resumed', '--resume')
    assert status == 0, output
    assert_equal_trainings(tmp_path / 'whole', tmp_path / 'parts', 'iter_6.pth')
    numbers = logged(tmp_path / 'whole')
    assert numbers[6]['loss'] < numbers[1]['loss']
    assert {'kl', 'reward_margin', 'reward_accuracy', 'weight_on_top_tenth'} & {*numbers[6]} == (
        {'kl'} if kind == 'likelihood' else {'kl', 'reward_margin', 'reward_accuracy', 'weight_on_top_tenth'}
    )


def test_the_tuned_generator_is_an_addp_again(files, tmp_path):
    status, output = train('preference', files, tmp_path, 'whole')
    assert status == 0, output
    weights = load_checkpoint_file(tmp_path / 'whole/iter_6.pth')['state_dict']
    own = {name.removeprefix('generator.'): weight for name, weight in weights.items()}
    assert any(map(is_adapter, own))
    path, config = tmp_path / 'aligned.pth', tmp_path / 'base.py'
    torch.save(merge_adapters(own), path)
    config.write_text(f"default_scope = 'mmpretrain'\nmodel = {generator_config(files, None)!r}\n")
    tuned, base = (load_model(str(config), checkpoint) for checkpoint in (path, files.checkpoint))
    assert module_fingerprint(tuned) != module_fingerprint(base)
    assert module_fingerprint(tuned.tokenizer) == module_fingerprint(base.tokenizer)
