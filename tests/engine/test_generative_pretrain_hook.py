# Copyright (c) addp_mm contributors. Apache-2.0.
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
from helpers.failing import Recorder
from helpers.tiny_addp import build_model
from helpers.tiny_pretraining import build_runner
from mmengine.hooks import Hook

from addp_mm.engine.hooks import GenerativePretrainHook
from addp_mm.generation import AlternatingSampler
from addp_mm.models.selfsup import ADDP


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
    'options, name', [(dict(preview_images=0), 'preview_images'), (dict(num_level_bins=0), 'num_level_bins')]
)
def test_bad_options_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        GenerativePretrainHook(**options)
