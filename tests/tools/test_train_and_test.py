# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/train.py and tools/test.py with a tiny classifier."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from addp_mm.compat import install
from addp_mm.config.config_file import load_config

install()
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def weights(path) -> dict:
    from mmengine.runner import CheckpointLoader

    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['state_dict']


def assert_equal_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)


def test_training_leaves_checkpoints_curves_and_images(trained):
    assert (trained / 'epoch_1.pth').is_file()
    assert (trained / 'epoch_2.pth').is_file()
    assert list(trained.glob('*/vis_data/events.out.tfevents.*'))
    assert list(trained.glob('*/vis_data/vis_image/*.png'))
    (log,) = (path.read_text() for path in trained.glob('*/*.log'))
    assert 'addp_mm: applied patches: ' in log
    scalars = [json.loads(line) for line in next(trained.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert sum('loss' in line for line in scalars) == 8
    assert sum('accuracy/top1' in line for line in scalars) == 2


def test_dumped_config_reproduces_the_training(workplace, trained, run_tool):
    shutil.copy(trained / 'tiny.py', workplace / 'dumped.py')
    finished = run_tool('train.py', 'dumped.py', '--work-dir', 'again')
    assert finished.status == 0, finished.output
    assert_equal_weights(workplace / 'again/epoch_2.pth', trained / 'epoch_2.pth')
    hooks = load_config(str(workplace / 'again/dumped.py')).custom_hooks
    names = ['PendingValidationHook', 'ResumeHook', 'PreflightHook', 'StopHook']
    assert [hook.type for hook in hooks] == [f'addp_mm.{name}' for name in names]


@pytest.mark.parametrize('how', ['auto', 'path'])
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(workplace, trained, run_tool, how):
    folder = workplace / f'resumed_{how}'
    folder.mkdir()
    shutil.copy(trained / 'epoch_1.pth', folder)
    options = ['--resume'] if how == 'auto' else ['--resume', folder / 'epoch_1.pth']
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    finished = run_tool('train.py', 'tiny.py', '--work-dir', folder, *options)
    assert finished.status == 0, finished.output
    assert 'Epoch(train) [1]' not in finished.output
    assert_equal_weights(folder / 'epoch_2.pth', trained / 'epoch_2.pth')


def test_resume_auto_without_a_checkpoint_starts_at_the_beginning(workplace, run_tool, trained):
    finished = run_tool(
        'train.py',
        'tiny.py',
        '--work-dir',
        'fresh',
        '--resume',
        'auto',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        f'load_from={trained / "epoch_2.pth"}',
    )
    assert finished.status == 0, finished.output
    assert 'has no checkpoint' in finished.output
    assert f'Load checkpoint from {trained / "epoch_2.pth"}' in finished.output


def test_amp_trains_in_bfloat16_on_the_cpu(workplace, trained, run_tool):
    finished = run_tool('train.py', 'tiny.py', '--work-dir', 'amp', '--amp', 'bfloat16')
    assert finished.status == 0, finished.output
    whole, half = weights(trained / 'epoch_2.pth'), weights(workplace / 'amp/epoch_2.pth')
    difference = max((whole[key] - half[key]).abs().max().item() for key in whole)
    assert 0 < difference < 0.02
    assert all(value.dtype == whole[key].dtype for key, value in half.items())


def test_auto_scale_lr_scales_by_the_batch(run_tool):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'scaled', '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1'
    )
    assert finished.status == 0, finished.output
    assert 'lr: 2.5000e-04' in finished.output


def test_seed_of_the_command_line_changes_the_weights(workplace, trained, run_tool):
    finished = run_tool('train.py', 'tiny.py', '--work-dir', 'seeded', '--seed', 5)
    assert finished.status == 0, finished.output
    first, second = weights(trained / 'epoch_2.pth'), weights(workplace / 'seeded/epoch_2.pth')
    assert (first['head.fc.weight'] != second['head.fc.weight']).any()


RANK_RECORD = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankRecord(Hook):
    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen += [sample.img_path for sample in data_batch['data_samples']]

    def after_train(self, runner):
        weights = runner.model.module.state_dict()
        torch.save(dict(seen=self.seen, state_dict=weights), f'{runner.work_dir}/rank_{runner.rank}.pth')
"""


def test_two_processes_share_the_data_and_keep_equal_weights(workplace):
    (workplace / 'rank_record.py').write_text(RANK_RECORD)
    (workplace / 'two.py').write_text(
        "_base_ = './tiny.py'\ncustom_imports = dict(imports=['rank_record'])\n"
        "custom_hooks = [dict(type='RankRecord')]\n"
    )
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'PYTHONPATH': os.pathsep.join([str(workplace), os.environ['PYTHONPATH']]),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    finished = subprocess.run(
        [ROOT / 'tools/dist_train.sh', 'two.py', '2', '--work-dir', 'two', '--cfg-options', 'train_cfg.max_epochs=1'],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
    )
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, output
    assert 'Epoch(train) [1][2/2]' in output
    seen = [torch.load(workplace / f'two/rank_{rank}.pth', weights_only=True)['seen'] for rank in range(2)]
    assert [len(paths) for paths in seen] == [8, 8]
    assert len({*seen[0], *seen[1]}) == 16
    # each process had other images: weights are equal only if gradients were averaged
    assert_equal_weights(workplace / 'two/rank_0.pth', workplace / 'two/rank_1.pth')
    assert_equal_weights(workplace / 'two/rank_0.pth', workplace / 'two/epoch_1.pth')


def test_a_sharded_training_is_tested_on_one_process(workplace, run_tool):
    sharded = 'strategy.type=addp_mm.ShardedStrategy'
    options = ['--launcher', 'pytorch', '--cfg-options', sharded, 'train_cfg.max_epochs=1']
    finished = run_tool('train.py', 'tiny.py', '--work-dir', 'sharded', *options, ranks=2)
    output = finished.output
    assert finished.status == 0, output
    assert 'Epoch(train) [1][2/2]' in output
    assert 'Epoch(val) [1][1/1]' in output
    tested = run_tool('test.py', 'tiny.py', 'sharded/epoch_1.pth', '--work-dir', 'tested', '--cfg-options', sharded)
    assert tested.status == 0, tested.output
    accuracy = json.loads((workplace / 'tested/metrics.json').read_text())['accuracy/top1']
    assert f'accuracy/top1: {accuracy:.4f}' in output
    alone = run_tool('train.py', 'tiny.py', '--work-dir', 'sharded', '--cfg-options', sharded)
    assert alone.status == 1
    assert 'error: strategy ShardedStrategy trains on several processes' in alone.output


def test_test_tool_writes_metrics_and_images(workplace, trained, run_tool):
    finished = run_tool('test.py', 'tiny.py', trained / 'epoch_2.pth', '--work-dir', 'tested', '--show-dir', 'drawn')
    assert finished.status == 0, finished.output
    metrics = json.loads((workplace / 'tested/metrics.json').read_text())
    assert set(metrics) == {'accuracy/top1'}
    assert 0 <= metrics['accuracy/top1'] <= 100
    # all images, although those of both classes have the same file names
    assert {str(path.relative_to(workplace / 'drawn')) for path in (workplace / 'drawn').rglob('*.*')} == {
        f'val/{name}/{index}.png' for name in ('dark', 'light') for index in range(4)
    }


def test_test_tool_writes_metrics_to_out(workplace, trained, run_tool):
    finished = run_tool(
        'test.py', 'tiny.py', trained / 'epoch_2.pth', '--work-dir', 'tested', '--out', 'new/scores.json'
    )
    assert finished.status == 0, finished.output
    assert 'accuracy/top1' in json.loads((workplace / 'new/scores.json').read_text())


def test_an_unexpected_error_keeps_its_traceback(workplace, run_tool):
    # only the first training step reads it
    loss = "dict(type='CrossEntropyLoss', loss_weight='heavy')"
    (workplace / 'broken.py').write_text(f"_base_ = './tiny.py'\nmodel = dict(head=dict(loss={loss}))\n")
    finished = run_tool('train.py', 'broken.py', '--work-dir', 'broken')
    assert finished.status == 1
    assert 'Traceback' in finished.output
    assert 'TypeError' in finished.output


def test_an_option_that_a_constructor_refuses_is_one_line(run_tool):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'refused', '--cfg-options', 'optim_wrapper.optimizer.weight_decay=-1.0'
    )
    assert finished.status == 1
    assert 'Traceback' not in finished.output
    assert 'error: config: optim_wrapper.optimizer cannot be built: Invalid weight_decay value: -1.0' in finished.output


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_needs_no_heavy_import(tool):
    code = (
        'import runpy, sys\n'
        f'sys.argv = [{tool!r}, "--help"]\n'
        'try:\n'
        f'    runpy.run_path({str(ROOT / "tools" / tool)!r}, run_name="__main__")\n'
        'except SystemExit as stop:\n'
        '    print("HEAVY", [m for m in ("torch", "mmengine") if m in sys.modules], stop.code)\n'
    )
    finished = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert '--cfg-options' in finished.stdout
    assert 'HEAVY [] 0' in finished.stdout


def test_a_training_that_diverges_ends_in_one_line_and_is_replayed(workplace, run_tool):
    finished = run_tool(
        'train.py', 'tiny.py', '--work-dir', 'diverged', '--cfg-options', 'optim_wrapper.optimizer.lr=1e30'
    )
    assert finished.status == 1, finished.output
    assert 'Traceback' not in finished.output
    last = finished.output.strip().splitlines()[-1]
    assert last.startswith('error: training failed at iteration ')
    assert 'data/train/' in last
    assert 'with a lower learning rate' in last
    assert not list((workplace / 'diverged').glob('*.pth'))
    (event,) = (workplace / 'diverged/failed_batches').iterdir()
    replayed = run_tool('analysis_tools/replay_batch.py', event, '--out', 'batch.png')
    assert replayed.status == 0, replayed.output
    assert f'iteration {event.stem.split("_")[1]}, rank 0: the ' in replayed.output
    assert 'first non-finite' in replayed.output
    assert (workplace / 'batch.png').is_file()
