# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.checks.launch import check_launcher

RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_LOCAL_RANK')


@pytest.mark.parametrize(
    'variable, launcher',
    [('WORLD_SIZE', 'pytorch'), ('SLURM_STEP_NUM_TASKS', 'slurm'), ('OMPI_COMM_WORLD_SIZE', 'mpi')],
)
def test_forgotten_launcher_is_refused(variable, launcher, monkeypatch):
    with pytest.raises(RuntimeError, match=f'started 4 processes.*Add --launcher {launcher}'):
        check_launcher('none', {variable: '4'})
    check_launcher(launcher, {variable: '4', RANKS[launcher]: '0'})
    check_launcher('none', {variable: '1'})
    monkeypatch.setenv(variable, '2')
    with pytest.raises(RuntimeError, match='started 2 processes'):
        check_launcher('none')


def test_single_process_passes():
    check_launcher('none', {})
    check_launcher('none', {'WORLD_SIZE': '', 'SLURM_NTASKS': '8'})


@pytest.mark.parametrize(
    'launcher, script',
    [('pytorch', 'dist_train.sh CONFIG'), ('slurm', 'slurm_train.sh PARTITION'), ('mpi', 'mpirun -n PROCESSES')],
)
def test_a_launcher_that_started_nothing_is_refused(launcher, script):
    with pytest.raises(RuntimeError, match=f'--launcher {launcher}.*{RANKS[launcher]} is not set') as error:
        check_launcher(launcher, {})
    assert script in str(error.value)
    assert 'leave --launcher out' in str(error.value)
