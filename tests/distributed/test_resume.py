# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two processes resume with the samples, the noise and the weights of an uninterrupted training."""

import pytest
import torch

pytestmark = pytest.mark.slow
STOP = 4


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('resume')


@pytest.mark.parametrize('kind', ['infinite', 'ours', 'aspect'])
def test_each_rank_goes_on_with_its_own_samples(runs, kind):
    ranks = [runs[f'{kind}_{rank}'] for rank in range(2)]
    for found in ranks:
        whole, resumed = found['whole'], found['resumed']
        assert resumed['trained'] == whole['trained'][STOP:]
        assert all(torch.equal(value, resumed['weights'][key]) for key, value in whole['weights'].items())
        seen = {sample[-1] for batch in whole['trained'][:STOP] for sample in batch}
        assert not seen & {float(torch.tensor(number)) for number in resumed['read']}
    one, other = ({sample[-1] for batch in found['whole']['trained'] for sample in batch} for found in ranks)
    assert not one & other  # augmentation differs between the ranks


def test_the_gradients_of_an_unfinished_step_are_the_mean_of_the_ranks(runs):
    """A step has three iterations. The sum is rounded in another order than without the resume."""
    ranks = [runs[f'accumulated_{rank}'] for rank in range(2)]
    for found in ranks:
        whole, resumed = found['whole'], found['resumed']
        for part in ('weights', 'moments'):
            torch.testing.assert_close(whole[part], resumed[part], rtol=1e-12, atol=1e-12)
        assert any(not torch.equal(value, torch.eye(4).double()) for value in whole['weights'].values())
    assert ranks[0]['resumed']['weights'].keys() == ranks[1]['resumed']['weights'].keys()
    for name, value in ranks[0]['resumed']['weights'].items():
        assert torch.equal(value, ranks[1]['resumed']['weights'][name])


def test_both_ranks_stop_after_the_iteration_in_which_one_got_a_signal(runs):
    for rank in range(2):
        found = runs[f'stopped_{rank}']
        assert found['status'] == 75
        assert found['saved'] == 'iter_5.pth'
        whole, resumed = found['whole'], found['resumed']
        assert resumed['trained'] == whole['trained'][5:]
        assert all(torch.equal(value, resumed['weights'][key]) for key, value in whole['weights'].items())
