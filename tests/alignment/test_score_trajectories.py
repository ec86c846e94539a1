# Copyright (c) addp_mm contributors. Apache-2.0.
"""Scores of stored trajectories, and generators that are not a positive and a negative one."""

import copy
from pathlib import Path

import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_alignment import write_files

from addp_mm.alignment.pairs import read_selection
from addp_mm.alignment.score_files import read_scores, write_scores
from addp_mm.alignment.score_trajectories import score_trajectories
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.sampler_settings import sampler_of
from addp_mm.generation.trajectories.trajectories import TrajectoryError
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    files = write_files(tmp_path_factory.mktemp('alignment'))
    numbers, found, settings = TrajectoryFiles(Path(files.trajectories)).read()
    return found, settings, read_selection(Path(files.selection), numbers, settings)


def changed(model, seed):
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.neck.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def test_the_score_is_the_contrast_at_the_step_that_kept_the_token(stored):
    found, settings, _ = stored
    base = build_model().eval()
    positive, negative = changed(base, 1), changed(base, 2)
    counted = []
    scored = score_trajectories(base, positive, negative, found, settings, 0.5, 3, counted.append)
    assert counted == [3, 3, 2]
    expected, margins = torch.zeros_like(scored.scores), torch.zeros_like(scored.scores)
    for step in replay(sampler_of(settings, base, (4, 4)), found):
        seen = step.state.images, found.ids, step.state.mask
        better, worse = (model.predict_tokens(*seen).detach() for model in (positive, negative))
        for result, logits in ((expected, (1.5 * better - 0.5 * worse).softmax(-1)), (margins, None)):
            if logits is None:
                logits = better.log_softmax(-1) - worse.log_softmax(-1)
            own = logits.gather(-1, found.ids[..., None])[..., 0]
            result.copy_(torch.where(step.kept, own, result))
    torch.testing.assert_close(scored.scores, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scored.margins, margins.mean(1), atol=1e-5, rtol=1e-4)


def test_equal_and_exchanged_generators_are_named(stored):
    found, settings, selection = stored
    base = build_model().eval()
    equal = score_trajectories(base, base, base, found, settings)
    torch.testing.assert_close(equal.scores, found.log_probs.exp(), atol=1e-5, rtol=1e-4)
    assert 'are equal: the scores are their probabilities' in equal.faults(selection.right, selection.wrong)[0]
    other = score_trajectories(base, changed(base, 1), changed(base, 2), found, settings)
    order = other.margins.argsort().tolist()
    assert other.faults(right=order[-2:], wrong=order[:2]) == []
    assert 'are both exchanged?' in other.faults(right=order[:2], wrong=order[-2:])[0]


def test_a_file_of_scores_belongs_to_its_trajectories(tmp_path):
    path, scores = tmp_path / 'scores.safetensors', torch.rand(3, 4)
    write_scores(path, scores, [7, 8, 9], dict(seed=0))
    assert torch.equal(read_scores(path, [9, 7], dict(seed=0)), scores[[2, 0]])
    for numbers, settings in (([7, 10], dict(seed=0)), ([7], dict(seed=1))):
        with pytest.raises(TrajectoryError, match='scores of other trajectories'):
            read_scores(path, numbers, settings)
