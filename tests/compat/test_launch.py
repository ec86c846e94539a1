# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.compat.launch import refuse_forgotten_launcher


@pytest.mark.parametrize('variable, launcher', [('WORLD_SIZE', 'pytorch'), ('SLURM_STEP_NUM_TASKS', 'slurm'),
                                                ('OMPI_COMM_WORLD_SIZE', 'mpi')])
def test_forgotten_launcher_is_refused(variable, launcher, monkeypatch):
    with pytest.raises(RuntimeError, match=f'started 4 processes.*Add --launcher {launcher}'):
        refuse_forgotten_launcher('none', {variable: '4'})
    refuse_forgotten_launcher(launcher, {variable: '4'})
    refuse_forgotten_launcher('none', {variable: '1'})
    monkeypatch.setenv(variable, '2')
    with pytest.raises(RuntimeError, match='started 2 processes'):
        refuse_forgotten_launcher('none')


def test_single_process_passes():
    refuse_forgotten_launcher('none', {})
    refuse_forgotten_launcher('none', {'WORLD_SIZE': '', 'SLURM_NTASKS': '8'})
