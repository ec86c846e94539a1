# Copyright (c) addp_mm contributors. Apache-2.0.
import json
import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_two_ranks_agree_on_components_and_weights():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, '-m', 'helpers.two_ranks', str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ends = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], ends
    zero, one = (json.loads(out.splitlines()[-1]) for out, _ in ends)
    assert zero == one
    assert zero['equal'] == 'passed'
    assert 'the predictor of rank(s) [1] differs' in zero['different']
    assert zero['non_finite'] == 'weight'
