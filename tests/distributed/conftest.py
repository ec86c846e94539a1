# Copyright (c) addp_mm contributors. Apache-2.0.
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def run_jobs(tmp_path_factory):
    """Run a scenario of ``jobs.py``; return the records, by ``<training>_<rank>``."""

    def run(scenario: str) -> dict:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        finished = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'helpers.jobs', scenario, str(run.folder)],
            env=environment,
            text=True,
            capture_output=True,
            timeout=600,
        )
        assert finished.returncode == 0, (finished.stdout + finished.stderr)[-8000:]
        return {path.stem: torch.load(path, weights_only=True) for path in run.folder.glob('*.pth')}

    run.folder = tmp_path_factory.mktemp('jobs')
    return run
