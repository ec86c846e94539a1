# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the weights in a checkpoint, without the prefixes of wrappers."""

import pytest
import torch

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.state_dict import find_state_dict

WEIGHTS = {'layer.weight': torch.arange(4.0).reshape(2, 2)}


def test_find_state_dict():
    for key in ('state_dict', 'model', 'module'):
        assert find_state_dict({key: WEIGHTS, 'epoch': 3}) == WEIGHTS
    assert find_state_dict(WEIGHTS) == WEIGHTS
    assert find_state_dict({'model': {f'module.{name}': w for name, w in WEIGHTS.items()}}) == WEIGHTS
    with pytest.raises(CheckpointError, match=r'a\.pth holds no weights.*epoch'):
        find_state_dict({'epoch': 3}, 'a.pth')


def test_names_of_compiled_and_parallel_modules():
    for wrap in ('_orig_mod.{}', 'module._orig_mod.{}', '_orig_mod.module.{}'):
        assert find_state_dict({wrap.format(name): w for name, w in WEIGHTS.items()}) == WEIGHTS
    inside = {f'backbone._orig_mod.{name}': w for name, w in WEIGHTS.items()}
    assert list(find_state_dict(inside)) == ['backbone.layer.weight']


def test_mmengines_moving_average_is_found_by_its_prefix():
    average = dict(steps=torch.tensor(3), **{f'module.{name}': w for name, w in WEIGHTS.items()})
    checkpoint = dict(state_dict=dict(other=torch.ones(1)), ema_state_dict=average)
    assert 'ema_state_dict.layer.weight' in find_state_dict(checkpoint, 'a.pth', 'ema_state_dict.')


@pytest.mark.parametrize(
    'checkpoint, prefix',
    [
        (dict(model_ema=WEIGHTS, epoch=1), 'model_ema.'),
        (dict(model={'other': torch.zeros(1)}, model_ema=WEIGHTS), 'model_ema.'),
        (dict(teacher={f'module.backbone.{name}': w for name, w in WEIGHTS.items()}), 'teacher.backbone.'),
        (dict(model=dict(teacher=WEIGHTS)), 'teacher.'),
        (dict(model=WEIGHTS), 'model.'),
        (dict(model={f'model.{name}': w for name, w in WEIGHTS.items()}), 'model.'),
    ],
)
def test_a_prefix_reaches_other_mappings_of_the_file(checkpoint, prefix):
    found = find_state_dict(checkpoint, 'a.pth', prefix)
    assert {name.removeprefix(prefix): w for name, w in found.items()} == WEIGHTS


def test_mappings_that_hold_weights_are_named():
    checkpoint = dict(student=WEIGHTS, teacher=WEIGHTS, optimizer=dict(state={0: dict(exp_avg=torch.ones(1))}))
    with pytest.raises(
        CheckpointError, match=r"under student, teacher. To load them, give prefix='student\.' or prefix='teacher\.'"
    ):
        find_state_dict(checkpoint, 'a.pth', 'backbone.')
    with pytest.raises(CheckpointError, match='under student, teacher. Save that mapping'):
        find_state_dict(checkpoint, 'a.pth')
