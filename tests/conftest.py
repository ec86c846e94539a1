# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every test starts with the same seed, on one thread and without a Runner of another test."""

import gc
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import random

import numpy as np
import pytest
import torch
from helpers.collected_loaders import end_workers_at_once
from helpers.config_files import read_fast
from mmengine.logging import MMLogger

torch.set_num_threads(1)
# `pythonpath` of the pytest settings, for the processes that tests start
_TESTS = os.path.dirname(os.path.abspath(__file__))
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (_TESTS, os.environ.get('PYTHONPATH'))))

read_fast()

end_workers_at_once()

pytest_plugins = ['helpers.run_tools', 'helpers.scene_fixtures', 'helpers.benchmark_runs']


@pytest.fixture(autouse=True, scope='module')
def garbage_of_this_file_only():
    """mmengine looks for garbage for each dataset: seconds, among the objects of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # the mm packages' augmentations draw from numpy's global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def without_a_current_logger():
    """The logger of a Runner stays after the Runner, with its work dir."""
    MMLogger._instance_dict.clear()
