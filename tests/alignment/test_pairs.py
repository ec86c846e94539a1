# Copyright (c) addp_mm contributors. Apache-2.0.
"""Right and wrong samples, and pairs."""

import json

import pytest
import torch

from addp_mm.alignment.pairs import SelectionRule, questions_of, read_selection, select, write_selection
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.trajectories import Trajectories, TrajectoryError

REWARDS = [0.1, 0.9, 0.5, 0.3, 0.2, 0.8, 0.7, 0.6]
QUESTIONS = ['bag', 'bag', 'bag', 'bag', 'coat', 'coat', 'coat', 'coat']
IDS = torch.arange(8)[:, None].expand(8, 3)


def test_the_best_and_the_worst_of_a_question_make_a_pair():
    found = select(REWARDS, QUESTIONS, IDS, SelectionRule())
    assert found.pairs == [(1, 0), (5, 4)]
    assert (found.right, found.wrong) == ([1, 5], [0, 4])
    more = select(REWARDS, QUESTIONS, IDS, SelectionRule(right=0.5, wrong=0.5, pairs_per_question=2))
    assert more.pairs == [(1, 0), (2, 3), (5, 4), (6, 7)]


def test_a_threshold_counts_questions_without_right_or_wrong_samples():
    found = select(REWARDS, QUESTIONS, IDS, SelectionRule('threshold', right=0.6, wrong=0.15, pairs_per_question=9))
    assert found.right == [1, 5, 6, 7]
    assert found.wrong == [0]
    assert found.pairs == [(1, 0)]
    assert found.counts == dict(samples=8, questions=2, without_right=0, without_wrong=1, without_difference=0)


def test_no_reward_is_on_both_sides():
    found = select([1.0, 1.0, 1.0, 0.0], [0] * 4, IDS[:4], SelectionRule(right=0.5, wrong=0.5))
    assert (found.right, found.wrong) == ([0, 1], [3])
    assert SelectionRule(right=0.5, wrong=0.5).split([0.0, 0.0, 1.0, 0.0]) == ([2], [3, 1])
    assert SelectionRule().split([0.5, 0.5, 0.5]) == ([], [])
    assert SelectionRule().split([0.5]) == ([], [])


def test_equal_images_make_no_pair_and_the_error_says_what_is_left():
    ids = IDS.clone()
    ids[1] = ids[0]
    found = select(REWARDS, QUESTIONS, ids, SelectionRule())
    assert found.pairs == [(5, 4)]
    assert found.counts['without_difference'] == 1
    with pytest.raises(TrajectoryError, match='no pair is left of 4 samples of 1 questions: 0 .*1 pairs have equal'):
        select(REWARDS[:4], QUESTIONS[:4], ids[:4], SelectionRule())
    with pytest.raises(TrajectoryError, match='2 questions have no right sample.*from 0.1 to 0.9.*right=2 and wrong'):
        select(REWARDS, QUESTIONS, IDS, SelectionRule('threshold', right=2, wrong=0))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(by='best'), "by must be 'rank' or 'threshold', got 'best'"),
        (dict(right=0.6), r'shares in \(0, 0.5\]'),
        (dict(wrong=0.0), r'shares in \(0, 0.5\]'),
        (dict(by='threshold', right=0.5, wrong=0.5), 'must be below'),
        (dict(by='threshold', right=float('nan'), wrong=0.5), 'must be below'),
        (dict(pairs_per_question=0), 'pairs_per_question must be at least 1'),
    ],
)
def test_rules_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        SelectionRule(**options)


def test_a_file_has_the_numbers_of_the_images_and_belongs_to_its_trajectories(tmp_path):
    path, numbers, settings = tmp_path / 'selection.json', [*range(100, 108)], dict(seed=0)
    write_selection(path, select(REWARDS, QUESTIONS, IDS, SelectionRule()), numbers, settings)
    found = read_selection(path, numbers, settings)
    assert found.pairs == [(101, 100), (105, 104)]
    with pytest.raises(TrajectoryError, match='other trajectories'):
        read_selection(path, numbers, dict(seed=1))
    with pytest.raises(TrajectoryError, match='images without trajectories, such as 100'):
        read_selection(path, numbers[1:], settings)
    content = json.loads(path.read_text())
    del content['pairs']
    path.write_text(json.dumps(content))
    with pytest.raises(TrajectoryError, match=r"cannot be read as a selection \(KeyError\('pairs'\)\)"):
        read_selection(path, numbers, settings)


def test_the_question_is_the_class_and_what_was_known():
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 3], [1, 5, 9], [1, 2, 3], [7, 2, 3]])
    kept_at = torch.tensor([[0, 1, 1], [1, 0, 1], [-1, 0, 1], [-1, 1, 0], [-1, 0, 1], [0, -1, 1]])
    labels = torch.tensor([2, 2, 2, 2, 0, 2])
    found = questions_of(Trajectories(ids, kept_at, torch.zeros(ids.shape), labels))
    assert found[:2] == [2, 2]
    assert found[2] == found[3]  # one hole of one image, two samples
    assert len({*found}) == 4  # another class, and the same ids at other positions
    selection = select([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], found, ids, SelectionRule())
    assert selection.pairs == [(1, 0), (3, 2)]
