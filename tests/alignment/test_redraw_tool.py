# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/analysis_tools/redraw_tokens.py: results, figures, files that do not fit."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_addp import build_model, write_config
from helpers.tiny_alignment import write_files
from PIL import Image

from addp_mm.alignment.figures import REJECTED
from addp_mm.alignment.pairs import Selection, write_selection
from addp_mm.alignment.redraw_experiment import CHOICES, Case, RedrawExperiment, right_thresholds
from addp_mm.alignment.redraw_figures import redraw_grid
from addp_mm.alignment.rewards import build_reward
from addp_mm.alignment.score_files import write_scores
from addp_mm.generation.sampling_state import Samples
from addp_mm.generation.trajectories.sampler_settings import sampler_of
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/redraw_tokens.py'
main = runpy.run_path(str(TOOL))['main']


def red(images):
    return images[:, 0].mean((1, 2))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('redraw')
    files = write_files(folder)
    write_config(folder)
    (folder / 'reward.py').write_text(
        "alignment = dict(reward=dict(type='MetricReward', key='red', metric=dict(type='RedMetric')))\n"
    )
    return folder, files


@pytest.fixture(autouse=True)
def red_metric(monkeypatch):
    from mmengine.evaluator import BaseMetric
    from mmengine.registry import METRICS

    class RedMetric(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results += [float(red(sample['image'][None])) for sample in data_samples]

        def compute_metrics(self, results):
            return dict(red=float(np.mean(results)))

    monkeypatch.setitem(METRICS.module_dict, 'RedMetric', RedMetric)


def arguments(files, out, **changed):
    folder, paths = files
    options = dict(
        samples=folder, selection=paths.selection, scores=paths.scores, reward=folder / 'reward.py', threshold=2
    )
    options.update(changed)
    given = [part for name, value in options.items() for part in (f'--{name}', str(value))]
    return [str(folder / 'addp_tiny.py'), paths.checkpoint, *given, '--out', str(out), '--device', 'cpu']


def experiment(files, rows, **changed):
    numbers, found, settings = TrajectoryFiles(Path(files[1].trajectories)).read()
    own = sampler_of(settings, build_model().eval(), (4, 4))
    scores = torch.rand(found.ids.shape, generator=torch.Generator().manual_seed(1))
    options = dict(seed=0, num_draws=2, **changed)
    numbers = [numbers[row] for row in rows]
    return RedrawExperiment(
        own, settings, build_reward(red), found[rows], scores[rows], numbers, [0.5] * len(rows), **options
    )


def test_results_and_figures(files, tmp_path, capsys):
    main(arguments(files, tmp_path, draws=2))
    results = json.loads((tmp_path / 'redraw.json').read_text())
    cases = results['cases']
    assert [(case['choice'], case['share']) for case in cases] == [
        (choice, share) for share in (0.125, 0.25, None) for choice in CHOICES
    ]
    # all choices draw as many tokens
    assert [case['tokens'] for case in cases] == [2, 2, 2, 4, 4, 4, 1, 1, 1]
    assert all(np.shape(case['rewards']) == (2, 2) for case in cases)
    assert all(case['right']['value'] == 0 < case['right']['high'] for case in cases)  # no reward is 2
    assert len(results['differences']) == 6
    assert len(results['images']) == len(results['rewards_before']) == 2
    assert Image.open(tmp_path / 'redraw.png').size == (4 * (96 + 6 + 2) + 2, 2 * (96 + 6 + 2) + 2)
    assert 'that become right' in (tmp_path / 'redraw.svg').read_text()
    shown = capsys.readouterr().out
    assert '1/8 of the tokens' in shown
    assert 'from one token on' in shown
    assert 'lowest score - random' in shown


def test_an_image_is_right_from_the_lowest_reward_of_a_right_one_on(files, tmp_path):
    numbers, found, settings = TrajectoryFiles(Path(files[1].trajectories)).read()
    own = experiment(files, [*range(8)])
    rewards = red(own.sampler.finished_pixels(found.ids))
    order = rewards.argsort().tolist()
    path = tmp_path / 'selection.json'
    write_selection(path, Selection(order[5:7], [order[0], order[7]], [], {}), numbers, settings)
    arguments_ = arguments(files, tmp_path, selection=path, draws=1)
    place = arguments_.index('--threshold')
    main([*arguments_[:place], *arguments_[place + 2 :]])
    results = json.loads((tmp_path / 'redraw.json').read_text())
    assert results['thresholds'] == [pytest.approx(float(rewards[order[5]]))]
    assert (results['images'], results['already_right']) == ([order[0]], [order[7]])
    assert results['rewards_before'] == [pytest.approx(float(rewards[order[0]]))]
    write_selection(path, Selection(order[7:], order[:6], [], {}), numbers, settings)
    main([*arguments_, '--num-images', '3', '--shares', '1'])
    assert json.loads((tmp_path / 'redraw.json').read_text())['images'] == sorted(order[:6])[::2]
    for case in results['cases']:
        assert case['right']['value'] == np.mean(np.array(case['rewards']) >= results['thresholds'][0])


@pytest.mark.parametrize('choice', CHOICES)
def test_a_case_does_not_depend_on_the_other_images_and_the_batches(files, choice):
    whole, part = experiment(files, [1, 4, 6], batch_size=2), experiment(files, [6])
    for share in (0.25, None):
        ran = [
            one.from_the_step_on(choice) if share is None else one.tokens_again(choice, share) for one in (whole, part)
        ]
        np.testing.assert_allclose(ran[0].rewards[2:], ran[1].rewards, atol=1e-6)
        assert np.array_equal(ran[0].right, ran[0].rewards >= 0.5)
    assert not np.array_equal(ran[0].rewards[:, 0], ran[0].rewards[:, 1])


def case(choice, rewards, right):
    rewards, right = np.array(rewards, np.float64), np.array(right, bool)
    return Case(choice, 0.25, [*range(len(rewards))], 4.0, rewards, right, 0.5, np.empty((0, 1, 1, 3), np.uint8))


def test_a_difference_is_the_first_minus_the_second_and_paired_by_image():
    levels = 10 * np.arange(30.0)[:, None]  # images differ far more than choices
    good = case('lowest score', levels + [[2.0, 4.0]], [[True, True]] * 15 + [[True, False]] * 15)
    poor = case('random', levels + [[1.0, 1.0]], [[True, False]] * 15 + [[False, False]] * 15)
    found = good.minus(poor)
    assert (found['choice'], found['minus'], found['share']) == ('lowest score', 'random', 0.25)
    assert found['reward'] == dict(value=2.0, low=2.0, high=2.0)  # the same for each image
    assert found['right']['value'] == 0.5
    back = poor.minus(good)
    for key in ('right', 'reward'):
        assert [back[key][limit] for limit in ('value', 'high', 'low')] == pytest.approx(
            [-found[key][limit] for limit in ('value', 'low', 'high')]
        )
    unpaired = case('random', levels[::-1] + [[1.0, 1.0]], poor.right)
    assert good.minus(unpaired)['reward']['value'] == 2.0
    assert good.minus(unpaired)['reward']['low'] < -30


def test_all_choices_of_an_image_and_draw_have_the_same_noise(files, monkeypatch):
    noise = []

    def redrawn(sampler, own, chosen, generators, batch_size, progress):
        noise.append([float(torch.rand(1, generator=one)) for one in generators])
        return Samples(torch.zeros(len(own), 3, 2, 2), own.ids)

    for function in ('redraw_tokens', 'redraw_and_continue'):
        monkeypatch.setattr(f'addp_mm.alignment.redraw_experiment.{function}', redrawn)
    whole, found = experiment(files, [1, 4, 6]), {}
    for choice in CHOICES:
        noise.clear()
        whole.tokens_again(choice, 0.25)
        whole.from_the_step_on(choice)
        found[choice] = [*noise]
    assert all(one == found[CHOICES[0]] for one in found.values())
    shares, continued = found[CHOICES[0]][: whole.num_draws], found[CHOICES[0]][whole.num_draws :]
    assert shares == continued
    assert len({one for draw in shares for one in draw}) == 3 * whole.num_draws  # other noise for each image and draw


def test_thresholds_belong_to_the_question():
    assert right_thresholds([3.0, 1.0, 2.0], ['a', 'a', 'b'], ['b', 'a', 'c']) == [2.0, 1.0, 1.0]


def test_the_lowest_score_of_an_image_is_red_and_known_tokens_are_not():
    image, scores = np.full((4, 4, 3), 100, np.uint8), torch.tensor([[0.02, 0.0, 0.03, 0.01]])
    generated = torch.tensor([[True, False, True, True]])
    grid = redraw_grid([image], scores, generated, (2, 2), {})
    heat = grid[5:101, 109:205]  # inside margin and frame
    places = [heat[row, column].tolist() for row in (10, 80) for column in (10, 80)]
    grey, half = [100] * 3, np.rint((100 + REJECTED) / 2).tolist()
    assert places == [half, grey, grey, REJECTED.tolist()]


def refused(arguments_):
    with pytest.raises(SystemExit) as exit_:
        main(arguments_)
    assert '\n' not in str(exit_.value.code)
    return str(exit_.value.code)


def test_files_that_do_not_fit_are_named(files, tmp_path):
    numbers, found, settings = TrajectoryFiles(Path(files[1].trajectories)).read()
    other = tmp_path / 'scores.safetensors'
    write_scores(other, torch.rand(found.ids.shape), numbers, dict(settings, seed=1))
    assert 'the scores of other trajectories' in refused(arguments(files, tmp_path, scores=other))
    none = tmp_path / 'selection.json'
    write_selection(none, Selection([0], [], [], {}), numbers, settings)
    assert 'selection.json has no wrong image' in refused(arguments(files, tmp_path, selection=none))
    assert 'all 2 wrong images' in refused(arguments(files, tmp_path, threshold=-1))
    no_reward = tmp_path / 'no_reward.py'
    no_reward.write_text('a = 1\n')
    assert 'has neither alignment.reward nor reward' in refused(arguments(files, tmp_path, reward=no_reward))
    torch.save(build_model(1).state_dict(), tmp_path / 'other.pth')
    given = arguments(files, tmp_path)
    given[1] = str(tmp_path / 'other.pth')
    assert 'trajectories of another model' in refused(given)
    assert 'has no trajectories' in refused(arguments(files, tmp_path, samples=tmp_path))
