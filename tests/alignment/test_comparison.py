# Copyright (c) addp_mm contributors. Apache-2.0.
"""The comparison of addp align: what is measured, its tables and its charts."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_extractor import write_weights
from PIL import Image

from addp_mm.alignment.pipeline.comparison import check_comparison, measure
from addp_mm.alignment.pipeline.comparison_section import comparison_pictures, difference_table
from addp_mm.alignment.pipeline.comparison_table import summary, with_differences
from addp_mm.alignment.pipeline.plan import Comparison
from addp_mm.alignment.pipeline.samples import Samples
from addp_mm.errors import ConfigError
from addp_mm.evaluation.diversity import mean_pairwise_distance
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles


def write_samples(folder, count=3):
    """Write images and trajectories as addp generate does."""
    trajectories = Trajectories(
        torch.arange(2 * count).view(count, 2),
        torch.zeros(count, 2).long(),
        torch.zeros(count, 2),
        torch.zeros(count).long(),
    )
    TrajectoryFiles(folder / 'trajectories').write(0, trajectories, dict(steps=1))
    (folder / 'images').mkdir()
    for number in range(count):
        Image.new('RGB', (16, 16), (80 * number, 0, 0)).save(folder / f'images/{number:06d}.png')
    return Samples.read(folder)


def test_samples_are_measured_again_if_the_files_of_the_comparison_have_changed(tmp_path, capsys):
    samples, real = write_samples(tmp_path / 'base'), write_samples(tmp_path / 'real', 4).folder / 'images'
    reward, device = dict(type=lambda images: images.mean((1, 2, 3))), torch.device('cpu')
    comparison = Comparison(2, dict(x=dict(type='SceneReward')), write_weights(tmp_path / 'vit.pth'), str(real))

    def measured():
        contents = check_comparison(comparison, device)
        return measure(samples, reward, comparison, contents, device), contents

    first, contents = measured()
    assert {*contents} == {'extractor', 'reference'}  # the measure has no weights
    file = samples.folder / 'measures.json'
    older = json.loads(file.read_text())
    assert older.pop('contents') == contents
    file.write_text(json.dumps(older | dict(diversity=7.0)))  # as an earlier version wrote it
    assert measured()[0]['diversity'] == 7.0
    file.write_text(json.dumps(first))
    write_weights(tmp_path / 'vit.pth', seed=1)
    capsys.readouterr()
    second, _ = measured()
    assert f'{samples.folder} is measured again: extractor changed' in capsys.readouterr().out
    assert second['diversity'] != first['diversity']
    (real / '000000.png').unlink()
    assert measured()[0]['frechet_distance'] != second['frechet_distance']
    assert 'is measured again: reference changed' in capsys.readouterr().out


def test_the_summary_is_paired_with_the_base():
    def seed(*rewards):
        return dict(rewards=dict(reward=list(rewards)), frechet_distance=None, diversity=1.0)

    table = summary(dict(base=[seed(0, 1, 2), seed(1, 1, 1)], tuned=[seed(1, 1, 0), seed(2, 2, 2)]))
    assert table['tuned']['better_than_base']['values'] == [0.5, 1.0]
    assert table['tuned']['reward']['mean'] == pytest.approx((2 / 3 + 2) / 2)
    assert table['tuned']['reward']['deviation'] == pytest.approx((2 - 2 / 3) / 2**0.5)
    assert 'frechet_distance' not in table['base']
    with pytest.raises(ConfigError, match='tuned and base have other numbers of images'):
        summary(dict(base=[seed(0, 1)], tuned=[seed(1)]))


def test_differences_are_paired_by_seed_and_have_an_interval_over_seeds():
    def row(*values):
        return dict(reward=dict(mean=sum(values) / len(values), deviation=None, values=[*values]))

    table = with_differences(dict(base=row(1.0, 5.0, 9.0), tuned=row(2.0, 6.5, 10.0)))  # as an earlier version wrote it
    assert table['base']['reward']['difference'] is None
    found = table['tuned']['reward']['difference']
    arm = 4.3027 * 0.288675 / 3**0.5  # Student's t, two degrees of freedom
    assert [found[key] for key in ('value', 'low', 'high')] == pytest.approx(
        [3.5 / 3, 3.5 / 3 - arm, 3.5 / 3 + arm], rel=1e-4
    )
    assert difference_table(table)[1] == ['tuned', '+1.167 (0.450 to 1.884)']
    one = with_differences(dict(base=row(1.0), tuned=row(0.5)))
    assert difference_table(one) == [['', 'reward'], ['tuned', '-0.500']]
    assert with_differences(table) == table
    unpaired = with_differences(dict(base=row(1.0, 2.0), tuned=row(1.0)))
    assert difference_table(unpaired)[1] == ['tuned', '–']


def test_each_number_has_a_chart_and_one_seed_has_no_error_bars():
    def seed(reward, distance):
        return dict(rewards=dict(reward=[reward] * 2), frechet_distance=distance, diversity=None)

    names = {'reward', 'better_than_base', 'frechet_distance'}
    names |= {f'{name}_difference' for name in names} | {'reward_and_frechet_distance'}
    one = comparison_pictures(summary(dict(base=[seed(1.0, 3.0)], tuned=[seed(2.0, 5.0)])))
    assert {*one} == names
    seeds = [seed(1.0, 3.0), seed(2.0, 5.0)]
    table = summary(dict(base=seeds, tuned=seeds[::-1]))
    two = comparison_pictures({name: dict(reward=row['reward']) for name, row in table.items()})
    assert {*two} == {'reward', 'reward_difference'}
    error_bar = b'LineCollection'
    assert error_bar in two['reward'].content
    assert error_bar not in one['reward'].content
    other = dict(base=[seed(1.0, None), seed(2.0, 5.0)], tuned=[seed(1.0, 4.0)] * 2)
    assert 'frechet_distance' not in summary(other)['tuned']


def test_diversity_is_the_mean_distance_within_a_question():
    features = torch.tensor([[0.0, 0], [3, 4], [9, 9], [9, 9], [9, 9]])
    assert mean_pairwise_distance(features, [0, 0, 1, 1, 2]) == pytest.approx(2.5)
    assert np.isnan(mean_pairwise_distance(features, [0, 1, 2, 3, 4]))
