# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mask R-CNN learns the same on one process, under DDP and under FSDP."""

import pytest
from helpers.comparing import assert_ddp_equals_one, assert_equal

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('detect')


def test_two_processes_have_the_gradients_and_weights_of_one(runs):
    assert_ddp_equals_one(runs)


def test_a_sharded_detector_has_the_weights_and_norms_of_one_process(runs):
    for rank in range(2):
        assert_equal(runs['one_0']['weights'], runs[f'sharded_{rank}']['weights'])
        assert runs[f'sharded_{rank}']['norms'] == pytest.approx(runs['one_0']['norms'], rel=1e-4)
    assert runs['sharded_0']['units'] == ['MaskRCNN', 'Block', 'Block']
