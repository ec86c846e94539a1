# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two processes agree on a failure that only one of them sees."""

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def results(run_jobs):
    records = run_jobs('guard')
    return run_jobs.folder, {
        name: [records[f'{name}_{rank}'] for rank in range(2)] for name in ('stop', 'skip', 'sharded')
    }


def test_all_ranks_stop_with_the_same_words(results):
    folder, found = results
    zero, one = found['stop']
    assert zero['text'] == one['text']
    assert 'iteration 3 (rank 1: loss nan' in zero['text']
    assert 'iter_3_rank_1.pth' in zero['text']
    assert [path.name for path in (folder / 'stop/failed_batches').iterdir()] == ['iter_3_rank_1.pth']
    assert zero['iterations'] == one['iterations'] == 2


@pytest.mark.parametrize('kind', ['skip', 'sharded'])
def test_all_ranks_skip_the_same_update(results, kind):
    zero, one = results[1][kind]
    assert zero['text'] == one['text'] == ''
    assert zero['iterations'] == one['iterations'] == 4
    assert set(zero['steps']) | set(one['steps']) == {3}
    for part in (zero, one):
        assert all(weight.isfinite().all() for weight in part['weights'].values())
    if kind == 'skip':
        assert all(torch.equal(weight, one['weights'][name]) for name, weight in zero['weights'].items())
