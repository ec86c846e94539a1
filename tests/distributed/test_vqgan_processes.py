# Copyright (c) addp_mm contributors. Apache-2.0.
"""A VQGAN learns the same on two processes as on one."""

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('vqgan')


@pytest.mark.parametrize('name', ['', '_ema'])
def test_two_processes_have_the_weights_of_one(runs, name):
    one, first, second = (runs[key]['weights'] for key in (f'one{name}_0', f'ddp{name}_0', f'ddp{name}_1'))
    for key, value in one.items():
        torch.testing.assert_close(first[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f'{key}: {text}')
        assert torch.equal(first[key], second[key]), key


def test_the_adaptive_weight_is_that_of_the_whole_batch(runs):
    for step in (3, 4, 5):
        one, first, second = (runs[key]['logged'][step]['adversarial_weight'] for key in ('one_0', 'ddp_0', 'ddp_1'))
        assert first == second == pytest.approx(one, rel=1e-3)


def test_every_rank_draws_the_same_codes(runs):
    first, second = (runs[f'ddp_restart_{rank}']['weights'] for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
