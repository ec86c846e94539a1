# Copyright (c) addp_mm contributors. Apache-2.0.
import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_pretraining import build_runner
from mmengine.hooks import Hook

from addp_mm.config.config_file import ConfigError
from addp_mm.diffusion import NoiseDraw
from addp_mm.engine.hooks import GenerativePretrainHook, TrainingCollapsedError
from addp_mm.generation import AlternatingSampler
from addp_mm.models.selfsup import ADDP
from addp_mm.randomness import generator_from_process


class Recorder(Hook):
    """Records the level of each iteration, a number of its masks' noise, and the loss."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.levels, self.losses, self.learning_rates = {}, {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        with torch.random.fork_rng(devices=[]):
            noise = NoiseDraw.sample(runner.model.schedule, generator_from_process())
        number = torch.rand((), generator=noise.generator)
        self.levels.setdefault(runner.iter, []).append((noise.level, float(number)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = outputs['loss'].item()
        assert outputs['mask_ratio'].item() == pytest.approx(self.levels[runner.iter][-1][0].ratio)
        self.learning_rates[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]


class Poison(Hook):
    """Sets a weight to NaN before each of the given iterations, once."""

    def __init__(self, *iterations):
        self.iterations = set(iterations)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter in self.iterations:
            self.iterations.remove(runner.iter)
            with torch.no_grad():
                runner.model.head.fc.weight.fill_(math.nan)


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def scalars(runner):
    file = next(Path(runner.work_dir).rglob('vis_data/scalars.json'))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_levels_and_losses_of_a_resumed_run_equal_the_uninterrupted(tmp_path):
    whole, first, second = Recorder(), Recorder(), Recorder()
    build_runner(tmp_path / 'whole', {}, extra_hooks=[whole]).train()
    build_runner(tmp_path / 'parts', {}, max_iters=4, extra_hooks=[first]).train()
    build_runner(tmp_path / 'parts', {}, extra_hooks=[second], resume=True).train()
    assert sorted(second.levels) == [4, 5]
    assert {**first.levels, **second.levels} == whole.levels
    assert len({number for drawn in whole.levels.values() for _, number in drawn}) == 6


def test_load_from_does_not_restore_random_numbers(tmp_path):
    first, second = Recorder(), Recorder()
    build_runner(tmp_path / 'first', {}, max_iters=2, extra_hooks=[first]).train()
    build_runner(
        tmp_path / 'second', {}, max_iters=2, extra_hooks=[second], load_from=str(tmp_path / 'first' / 'iter_2.pth')
    ).train()
    assert second.levels == first.levels


def test_level_and_loss_by_level_are_logged(tmp_path):
    recorder = Recorder()
    runner = build_runner(tmp_path / 'run', dict(num_level_bins=2), extra_hooks=[recorder])
    runner.train()
    lines = scalars(runner)
    ratios = [recorder.levels[i][0][0].ratio for i in range(6)]
    assert [line['mask_ratio'] for line in lines] == pytest.approx(ratios)
    bins = sorted({key for line in lines for key in line if key.startswith('loss_at_ratio')})
    assert set(bins) <= {'loss_at_ratio_0.51-0.75', 'loss_at_ratio_0.75-1.00'}
    first = recorder.levels[0][0][0]
    name = bins[0] if first.ratio < 0.754 else bins[-1]
    assert lines[0][name] == pytest.approx(recorder.losses[0], rel=1e-5)


@pytest.mark.parametrize('part', ['tokenizer', 'predictor'])
def test_random_frozen_components_are_refused(tmp_path, part):
    model = build_model()
    getattr(model, part).weights_loaded = False
    with pytest.raises(RuntimeError, match=f'frozen {part}'):
        build_runner(tmp_path / 'run', {}, model=model).train()
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_non_finite_loss_stops_and_names_iteration_level_and_checkpoint(tmp_path):
    recorder = Recorder()
    runner = build_runner(tmp_path / 'run', {}, extra_hooks=[Poison(3), recorder])
    with pytest.raises(TrainingCollapsedError, match='iteration 4 .*mask ratio .*iter_2.pth') as error:
        runner.train()
    assert f'{recorder.levels[3][0][0].ratio:.3f}' in str(error.value)
    assert not (tmp_path / 'run' / 'iter_4.pth').exists()


def test_rollback_restores_model_optimizer_schedule_and_random_numbers(tmp_path):
    recorder = Recorder()
    poison = Poison(3)
    runner = build_runner(tmp_path / 'run', dict(on_failure='rollback'), extra_hooks=[poison, recorder], max_iters=6)
    runner.train()
    assert not poison.iterations
    assert runner.iter == 6
    # iterations 2 and 3 (from 0) ran twice with the same levels, and the failed one was not
    # recorded as done
    assert [len(recorder.levels[i]) for i in range(6)] == [1, 1, 2, 2, 1, 1]
    for i in (2, 3):
        assert recorder.levels[i][0] == recorder.levels[i][1]
    plain = Recorder()
    build_runner(tmp_path / 'plain', {}, extra_hooks=[plain]).train()
    assert recorder.learning_rates == plain.learning_rates
    assert {i: drawn[-1] for i, drawn in recorder.levels.items()} == {i: drawn[0] for i, drawn in plain.levels.items()}
    final = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=False)
    assert all(value.isfinite().all() for value in final['state_dict'].values() if value.is_floating_point())
    assert all(state['step'] == 6 for state in final['optimizer']['state'].values())
    assert final['generative_pretrain']['rollbacks'] == 1


def test_rollback_skips_broken_checkpoints(tmp_path):
    class Damage(Hook):
        """Saves NaN weights as the newest checkpoint, and truncates the one before."""

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 7 and runner.model.head.fc.weight.isfinite().all() and not damaged:
                damaged.append(True)
                newest, middle = (tmp_path / 'run' / f'iter_{i}.pth' for i in (6, 4))
                saved = torch.load(newest, weights_only=False)
                saved['state_dict']['head.fc.weight'].fill_(math.nan)
                torch.save(saved, newest)
                middle.write_bytes(middle.read_bytes()[:1000])

    damaged = []
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run', dict(on_failure='rollback'), extra_hooks=[Damage(), Poison(7), recorder], max_iters=8
    )
    runner.train()
    assert [len(recorder.levels[i]) for i in range(8)] == [1, 1, 2, 2, 2, 2, 2, 2]
    # later checkpoints were written again, and the newest three are kept
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == [f'iter_{i}.pth' for i in (4, 6, 8)]
    assert all(weights(path)['head.fc.weight'].isfinite().all() for path in (tmp_path / 'run').glob('*.pth'))


class InfiniteStep(Hook):
    """Sets a weight to infinity after the loss of an iteration (from 1), once."""

    priority = 'HIGHEST'

    def __init__(self, iteration):
        self.iterations = {iteration}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 in self.iterations:
            self.iterations.remove(runner.iter + 1)
            torch.nn.init.constant_(runner.model.head.fc.bias, math.inf)


@pytest.mark.parametrize('iteration', [4, 6])  # an iteration that is saved, and the last one
def test_weights_that_a_step_made_infinite_are_not_saved(tmp_path, iteration):
    runner = build_runner(tmp_path / 'stop', {}, extra_hooks=[InfiniteStep(iteration)])
    with pytest.raises(
        TrainingCollapsedError,
        match=rf'iteration {iteration} .*head.fc.bias is not finite.*'
        rf'iter_{iteration - 2}.pth: resume from it',
    ):
        runner.train()
    assert not (tmp_path / 'stop' / f'iter_{iteration}.pth').exists()
    runner = build_runner(tmp_path / 'back', dict(on_failure='rollback'), extra_hooks=[InfiniteStep(iteration)])
    runner.train()
    assert runner.iter == 6
    assert all(
        value.isfinite().all()
        for value in weights(tmp_path / 'back' / 'iter_6.pth').values()
        if value.is_floating_point()
    )


def test_checkpoints_of_another_run_in_the_folder_are_not_used(tmp_path):
    build_runner(tmp_path / 'run', {}).train()
    options = dict(on_failure='rollback')
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*no good checkpoint yet'):
        build_runner(tmp_path / 'run', options, checkpoint_interval=3, extra_hooks=[Poison(1)]).train()
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*has no good checkpoint of this run: restart'):
        build_runner(tmp_path / 'run', {}, checkpoint_interval=3, extra_hooks=[Poison(1)]).train()
    # resumed in the middle: later checkpoints belong to another run, earlier ones to this run
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run',
        options,
        checkpoint_interval=8,
        max_iters=8,
        resume=True,
        load_from=str(tmp_path / 'run' / 'iter_4.pth'),
        extra_hooks=[Poison(5), recorder],
    )
    runner.train()
    assert [len(recorder.levels[i]) for i in range(4, 8)] == [2, 2, 1, 1]
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'other',
        options,
        checkpoint_interval=8,
        resume=True,
        load_from=str(tmp_path / 'run' / 'iter_4.pth'),
        extra_hooks=[Poison(5), recorder],
    )
    runner.train()
    assert [len(recorder.levels[i]) for i in (4, 5)] == [2, 2]


@pytest.mark.parametrize('checkpoint', [dict(filename_tmpl='iter_{:06d}.pth'), dict(out_dir='elsewhere')])
def test_checkpoints_of_other_names_and_folders_are_found(tmp_path, checkpoint):
    if 'out_dir' in checkpoint:
        checkpoint = dict(out_dir=str(tmp_path / 'elsewhere'))
    with pytest.raises(TrainingCollapsedError, match='no good checkpoint yet'):
        build_runner(
            tmp_path / 'none', dict(on_failure='rollback'), checkpoint=checkpoint, extra_hooks=[Poison(1)]
        ).train()
    runner = build_runner(tmp_path / 'run', dict(on_failure='rollback'), checkpoint=checkpoint, extra_hooks=[Poison(3)])
    runner.train()
    assert runner.iter == 6


def test_rollback_leaves_the_epoch(tmp_path):
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run',
        dict(on_failure='rollback'),
        by_epoch=True,
        checkpoint_interval=1,
        max_iters=3,
        extra_hooks=[Poison(6), recorder],
    )
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 12)
    assert [len(recorder.levels[i]) for i in range(12)] == [1] * 4 + [2] * 3 + [1] * 5


def test_rollbacks_are_limited(tmp_path):
    runner = build_runner(
        tmp_path / 'run',
        dict(on_failure='rollback', max_rollbacks=2),
        checkpoint_interval=1,
        extra_hooks=[Poison(3, 4, 5)],
    )
    with pytest.raises(TrainingCollapsedError, match='2 rollback.* with a lower learning rate or stronger') as raised:
        runner.train()
    assert 'on_failure' not in str(raised.value)  # which is already on


def test_failure_before_the_first_checkpoint_stops(tmp_path):
    runner = build_runner(tmp_path / 'run', dict(on_failure='rollback'), extra_hooks=[Poison(1)])
    with pytest.raises(TrainingCollapsedError, match='no good checkpoint yet'):
        runner.train()


def test_collapse_of_the_running_mean_stops(tmp_path):
    runner = build_runner(tmp_path / 'run', dict(guard=dict(floor=100.0, window=2)))
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*below the floor 100'):
        runner.train()


def test_rollback_without_checkpoints_is_refused(tmp_path):
    runner = build_runner(tmp_path / 'run', dict(on_failure='rollback'))
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ != 'CheckpointHook']
    with pytest.raises(ValueError, match='CheckpointHook'):
        runner.train()


def test_rollback_into_the_middle_of_an_epoch_is_refused(tmp_path):
    recorder = Recorder()
    settings = dict(by_epoch=True, max_iters=2, extra_hooks=[recorder], checkpoint=dict(by_epoch=False))
    with pytest.raises(ConfigError, match='checkpoint.by_epoch=True, or train by iterations'):
        build_runner(tmp_path / 'back', dict(on_failure='rollback'), **settings).train()
    assert not recorder.levels
    build_runner(tmp_path / 'stop', dict(on_failure='stop'), **settings).train()
    assert sorted(recorder.levels) == list(range(8))


def test_previews_reach_the_visualizer_and_change_nothing(tmp_path):
    class Modes(Hook):
        priority = 'VERY_LOW'
        seen = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.seen.append((runner.model.training, runner.model.backbone.training, runner.model.tokenizer.training))

    with_previews, without = Recorder(), Recorder()
    preview = dict(preview_interval=2, preview_images=3, sampler=dict(num_steps=3))
    runner = build_runner(tmp_path / 'run', preview, max_iters=5, extra_hooks=[with_previews, Modes()])
    runner.train()
    figures = {path.name: cv2.imread(str(path)) for path in (tmp_path / 'run').rglob('vis_image/*.png')}
    assert sorted(figures) == sorted(
        f'{name}_{i}.png' for name in ('generated', 'alternating_steps') for i in (2, 4, 5)
    )
    assert figures['generated_2.png'].shape == (2 * 18 + 2, 2 * 18 + 2, 3)
    assert figures['alternating_steps_4.png'].shape[1] > figures['alternating_steps_4.png'].shape[0]
    assert set(Modes.seen) == {(True, True, False)}
    build_runner(tmp_path / 'without', {}, max_iters=5, extra_hooks=[without]).train()
    assert with_previews.levels == without.levels
    assert with_previews.losses == without.losses


def test_previews_of_a_conditional_model_show_its_classes_in_turn(tmp_path, monkeypatch):
    seen = []
    plain = AlternatingSampler.run

    def run(sampler, *args, labels=None, **options):
        seen.append(labels)
        return plain(sampler, *args, **options)

    monkeypatch.setattr(AlternatingSampler, 'run', run)
    preview = dict(preview_interval=1, preview_images=5, sampler=dict(num_steps=1))
    build_runner(tmp_path / 'plain', preview, max_iters=1).train()
    monkeypatch.setattr(ADDP, 'num_classes', 3, raising=False)
    build_runner(tmp_path / 'classes', preview, max_iters=1).train()
    assert seen == [None, [0, 1, 2, 0, 1]]


def test_previews_take_no_more_steps_than_there_are_tokens():
    preview = GenerativePretrainHook().preview
    for size, steps in (((4, 4), 12), ((2, 3), 6)):
        assert preview._build_sampler(SimpleNamespace(latent_size=size)).schedule.num_steps == steps


def test_mistakes_are_found_before_the_first_iteration(tmp_path):
    recorder = Recorder()
    for option, value in dict(ratio='square', schedule='linear', num_steps=17).items():
        hook = dict(preview_interval=100, sampler={option: value})
        with pytest.raises(ValueError, match=option):
            build_runner(tmp_path / 'sampler', hook, extra_hooks=[recorder]).train()
    tokenizer = build_model().tokenizer.requires_grad_()
    tokenizer.train_step = None
    with pytest.raises(TypeError, match='VQTokenizer has no frozen tokenizer'):
        build_runner(tmp_path / 'model', model=tokenizer, extra_hooks=[recorder]).train()
    assert not recorder.levels


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(on_failure='ignore'), 'on_failure'),
        (dict(max_rollbacks=-1), 'max_rollbacks'),
        (dict(preview_images=0), 'preview_images'),
        (dict(guard=dict(window=0)), 'window'),
    ],
)
def test_bad_options_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        GenerativePretrainHook(**options)
