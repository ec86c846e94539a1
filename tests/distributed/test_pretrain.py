# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP learns the same on one process, under DDP and under FSDP."""

import math

import pytest
from helpers.comparing import assert_ddp_equals_one, assert_equal

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('pretrain')


def test_two_processes_have_the_gradients_and_weights_of_one(runs):
    assert_ddp_equals_one(runs)


def test_a_sharded_model_has_the_weights_and_norms_of_one_process(runs):
    one = runs['one_0']
    for rank in range(2):
        sharded = runs[f'sharded_{rank}']
        assert_equal(one['weights'], sharded['weights'])
        # clipping by the norm of one process's shards would differ on the first step
        assert sharded['norms'] == pytest.approx(one['norms'], abs=1e-5)


def test_each_block_is_a_unit_and_each_process_holds_half(runs):
    whole = runs['one_0']['parameters_here']
    for rank in range(2):
        assert runs[f'sharded_{rank}']['units'] == ['ADDP'] + ['Block'] * 5
        assert abs(runs[f'sharded_{rank}']['parameters_here'] - whole / 2) < 0.02 * whole


def test_parameter_groups_do_not_change_by_sharding(runs):
    assert runs['sharded_0']['settings'] == runs['one_0']['settings']
    assert len({tuple(group) for group in runs['one_0']['settings']}) == 2


@pytest.mark.parametrize('resumed', ['sharded_resumed', 'one_resumed', 'sharded_from_one'])
def test_a_checkpoint_resumes_on_any_number_of_processes(runs, resumed):
    """Weights, momentum, schedule and noise come from the file: the resumed run has another
    seed."""
    assert len(runs[f'{resumed}_0']['norms']) == 1
    assert_equal(runs['one_0']['weights'], runs[f'{resumed}_0']['weights'])


def test_sharded_training_in_bfloat16_with_checkpointed_blocks(runs):
    low, one = runs['sharded_bfloat16_0'], runs['one_0']
    assert low['dtypes'] == ['torch.float32']
    assert all(map(math.isfinite, low['norms']))
    assert low['norms'] == pytest.approx(one['norms'], rel=0.05)
    assert low['norms'] != one['norms']


def test_a_sharded_checkpoint_is_one_file_of_whole_weights(runs, run_jobs):
    from mmengine.runner.checkpoint import CheckpointLoader

    import addp_mm
    from addp_mm.models.backbones import ADDPViT

    assert addp_mm
    path = run_jobs.folder / 'sharded' / 'iter_3.pth'
    sharded, one = (
        CheckpointLoader.load_checkpoint(str(run_jobs.folder / name / 'iter_3.pth'), 'cpu')
        for name in ('sharded', 'one')
    )
    assert_equal(one['state_dict'], sharded['state_dict'])
    assert set(sharded['optimizer']) == set(one['optimizer'])
    backbone = ADDPViT(
        dict(embed_dims=8, num_layers=3, num_heads=2),
        16,
        4,
        out_type='raw',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(path), prefix='backbone.'),
    )
    backbone.init_weights()
    assert_equal(
        dict(backbone.state_dict()),
        {key[9:]: value for key, value in one['state_dict'].items() if key.startswith('backbone.')},
    )


def test_a_sharded_training_draws_previews(runs, run_jobs):
    names = {path.name for path in (run_jobs.folder / 'sharded').rglob('*.png')}
    assert names == {'generated_2.png', 'generated_3.png', 'alternating_steps_2.png', 'alternating_steps_3.png'}
