# Copyright (c) addp_mm contributors. Apache-2.0.
import os
import warnings
from importlib import import_module
from pathlib import Path

import pytest
from helpers.interrupted import in_a_fork
from helpers.jobs import records
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer


def _run(scenario, folder: Path) -> None:
    warnings.simplefilter('ignore')
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()  # what earlier tests of this process have left
    scenario(folder)


@pytest.fixture(scope='module')
def run_jobs(tmp_path_factory):
    """Run a scenario of ``jobs.py``; return the records, by ``<training>_<rank>``."""

    def run(scenario: str) -> dict:
        jobs = import_module(f'helpers.{scenario}_jobs')  # here: the next file has the packages imported
        status, output = in_a_fork(run.folder / 'output.txt', _run, jobs.run, run.folder)
        assert status == 0, output[-8000:]
        return records(run.folder)

    run.folder = tmp_path_factory.mktemp('jobs')
    return run
