# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings that are ended at random moments: the short form of ``.dev/chaos.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chaos_runs.kills import compare
from chaos_runs.kinds import KINDS
from chaos_runs.table import faults_table, kills_table

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_different(tmp_path):
    # no seed, so that over many runs of the tests other moments and signals are tried
    seed = str(int.from_bytes(os.urandom(3), 'little'))
    command = [
        *(sys.executable, ROOT / '.dev/chaos.py', '--runs', '8', '--kinds', 'predictor', 'classifier', '--seed', seed),
        *('--faults', 'last checkpoint cut in half', '64 bytes of the last checkpoint flipped'),
        *('--processes', '1', '--out', tmp_path),
    ]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f'seed {seed}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}'
    chains = [json.loads(line) for line in (tmp_path / 'kills.jsonl').read_text().splitlines()]
    assert sum(len(chain['ends']) for chain in chains) >= 8
    assert {chain['kind'] for chain in chains} == {'predictor', 'classifier'}
    assert len((tmp_path / 'faults.jsonl').read_text().splitlines()) == 4
    assert 'last checkpoint cut in half' in done.stdout


def finished(folder, weight=0.5, losses=(3.0, 2.0)):
    """A work dir as a training leaves it."""
    kind = KINDS[3]
    log = folder / '20300101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [dict(loss=loss, time=0.1 * loss, step=step + 1) for step, loss in enumerate(losses)]
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    torch.save(dict(state_dict=dict(weight=torch.tensor([weight])), meta=dict(iter=24)), folder / kind.last)
    return folder


def test_equal_trainings_have_no_difference(tmp_path):
    assert compare(KINDS[3], finished(tmp_path / 'a'), finished(tmp_path / 'b')) == []


def test_another_weight_and_another_loss_are_found(tmp_path):
    whole, other = finished(tmp_path / 'a'), finished(tmp_path / 'b', weight=0.5000001, losses=(3.0, 2.5))
    found = ' '.join(compare(KINDS[3], whole, other))
    assert 'state_dict.weight' in found
    assert 'log of iteration 2: loss' in found


def test_what_is_missing_is_found(tmp_path):
    whole, other = finished(tmp_path / 'a'), finished(tmp_path / 'b', losses=(3.0,))
    (other / KINDS[3].last).unlink()
    found = ' '.join(compare(KINDS[3], whole, other))
    assert 'is missing' in found
    assert 'iterations missing in the log: [2]' in found


def test_tables_count_ends_and_losses():
    chains = [
        dict(kind='ADDP', ends=[('SIGKILL', 'any', 3), ('SIGTERM', 'write', 8)], lost=[], different=[]),
        dict(kind='ADDP', ends=[('SIGKILL', 'write', 9)], lost=['iteration 9'], different=[]),
    ]
    rows = kills_table(chains).splitlines()
    assert rows[-1].split('|')[3:-1] == [' 2 ', ' 3 ', ' 2, 1, 0, 0 ', ' 2 ', ' 1 ', ' 0 ']
    trials = [dict(fault='image gone', kind='ADDP', lost=[], different=['weight'])]
    assert faults_table(trials).splitlines()[-1] == '| image gone | ADDP | 1 | 0 | 1 |'
