# Copyright (c) addp_mm contributors. Apache-2.0.
from helpers import two_ranks
from helpers.jobs import in_two, records


def test_two_ranks_agree_on_components_and_weights(tmp_path):
    in_two(tmp_path, 'ranks', two_ranks.job)
    zero, one = (records(tmp_path)[f'ranks_{rank}'] for rank in range(2))
    assert zero == one
    assert zero['equal'] == 'passed'
    assert 'the predictor of rank(s) [1] differs' in zero['different']
    assert zero['non_finite'] == 'weight'
