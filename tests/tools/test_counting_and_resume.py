# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/train.py with the nano classifier: what it counts, and what it takes from a checkpoint."""

import json
import math

import pytest
from helpers.run_tools import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addp_mm.report.logs import read_curve, scalar_files

pytestmark = pytest.mark.slow
NANO = ROOT / 'configs/cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px.py'
BASE = """
_base_ = {nano!r}
arch = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2)
model = dict(backbone=dict(arch=arch, init_cfg=None), head=dict(in_channels=16))
loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(data_root={scenes!r}), **loader)
val_dataloader = dict(dataset=dict(data_root={scenes!r}), **loader)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=9))
train_cfg = dict(max_iters=4, val_interval=2)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
"""


@pytest.fixture
def train(workplace, run_tool, small_scenes):
    """``train('name', 'changes of the config', options…)`` in the work dir ``name``."""

    def run(name, changes='', *options):
        text = BASE.format(nano=str(NANO), scenes=f'{small_scenes}/')
        (workplace / 'nano.py').write_text(text)
        (workplace / f'nano_{name}.py').write_text(f"_base_ = './nano.py'\n{changes}\n")
        return run_tool('train.py', f'nano_{name}.py', '--work-dir', f'counted/{name}', *options)

    return run


def records(folder):
    return [json.loads(line) for file in scalar_files(folder) for line in file.read_text().splitlines()]


def test_validation_is_logged_at_its_iteration(workplace, train):
    finished = train('validated')
    assert finished.status == 0, finished.output
    folder = workplace / 'counted/validated'
    assert [one['step'] for one in records(folder) if 'accuracy/top1' in one] == [2, 4]
    (events,) = folder.glob('*/vis_data/events.out.tfevents.*')
    read = EventAccumulator(str(events.parent)).Reload()
    assert [one.step for one in read.Scalars('accuracy/top1')] == [2, 4]
    assert [step for step, _ in read_curve(folder)] == [1, 2, 3, 4]


def test_a_stock_runtime_is_logged_at_its_iteration_too(workplace, train):
    changes = (
        "default_hooks = dict(logger=dict(_delete_=True, type='LoggerHook', interval=1))\n"
        'log_processor = dict(_delete_=True)'
    )
    finished = train('stock', changes)
    assert finished.status == 0, finished.output
    assert 'Iter(train) [4/4]' in finished.output
    assert [one['step'] for one in records(workplace / 'counted/stock') if 'accuracy/top1' in one] == [2, 4]


@pytest.mark.parametrize(
    'name, changes, words',
    [
        (
            'endless',
            'train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2, val_interval=1)\nparam_scheduler = None\n'
            'default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))',
            'train_dataloader.sampler ResumableInfiniteSampler has no end',
        ),
        (
            'constant',
            "param_scheduler = [dict(type='CosineAnnealingLR', T_max=4)]\n"
            "default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook', interval=2))",
            'by_epoch=False, with its numbers in iterations. default_hooks.checkpoint counts epochs',
        ),
        (
            'decay',
            "optim_wrapper = dict(_delete_=True, optimizer=dict(type='SGD', lr=0.1), "
            'paramwise_cfg=dict(norm_decay_mult=0.0))',
            'optim_wrapper.paramwise_cfg.norm_decay_mult multiplies optim_wrapper.optimizer.weight_decay',
        ),
        (
            'best',
            "default_hooks = dict(checkpoint=dict(save_best='accuracy/top5', rule='greater'))",
            "save_best='accuracy/top5' is not a metric of val_evaluator. Its metrics are called accuracy/top1",
        ),
        ('option', '', '--override-schedule changes a resumed training: add --resume'),
    ],
)
def test_a_config_that_would_go_wrong_is_refused_in_one_line(workplace, train, name, changes, words):
    finished = train(name, changes, *(['--override-schedule'] if name == 'option' else []))
    assert finished.status == 1
    assert 'Traceback' not in finished.output
    assert words in finished.output.splitlines()[-1]
    assert not list((workplace / f'counted/{name}').glob('*.pth'))


@pytest.mark.parametrize('enabled', [True, False])
def test_the_rate_is_scaled_by_the_batch_of_an_optimizer_step(workplace, train, enabled):
    name = f'scaled_{enabled}'
    changes = (
        f'auto_scale_lr = dict(enable={enabled}, base_batch_size=16)\n'
        'optim_wrapper = dict(accumulative_counts=4, optimizer=dict(lr=0.5))\n'
        'param_scheduler = None'
    )
    finished = train(name, changes, *([] if enabled else ['--auto-scale-lr']))
    assert finished.status == 0, finished.output
    assert 'batch_size 4 x accumulative_counts 4 x 1 process(es) = 16 images in one optimizer step' in finished.output
    assert 'Scaling the original LR by 1.0' in finished.output
    assert records(workplace / f'counted/{name}')[0]['base_lr'] == 0.5
    # the config of the work dir can be used again
    dumped = f'counted/{name}/nano_{name}.py'
    assert 'base_batch_size=16' in (workplace / dumped).read_text()


def test_a_resume_names_the_differences_and_takes_the_new_schedule_on_request(workplace, train):
    assert train('old').status == 0
    changes = (
        'train_cfg = dict(max_iters=8)\noptim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.1))\n'
        "param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]"
    )
    old = workplace / 'counted/old/iter_4.pth'
    kept = train('kept', changes, '--resume', old)
    assert kept.status == 0, kept.output
    assert 'optim_wrapper.optimizer.lr: 0.001 in the checkpoint, 0.01 in the config' in kept.output
    assert 'optim_wrapper.optimizer.weight_decay: 0.05 in the checkpoint, 0.1 in the config' in kept.output
    assert 'param_scheduler.0.T_max: 4 in the checkpoint, 8 in the config' in kept.output
    rates = [one['base_lr'] for one in records(workplace / 'counted/kept') if 'base_lr' in one]
    assert max(rates) < 0.001
    changed = train('changed', changes, '--resume', old, '--override-schedule')
    assert changed.status == 0, changed.output
    rates = {one['step']: one['base_lr'] for one in records(workplace / 'counted/changed') if 'base_lr' in one}
    # a rate is logged after the scheduler's step of its iteration
    assert rates == pytest.approx({step: 0.005 * (1 + math.cos(math.pi * (step - 1) / 8)) for step in (5, 6, 7, 8)})


def test_the_best_checkpoint_continues_when_it_is_the_only_one(workplace, train):
    changes = "default_hooks = dict(checkpoint=dict(interval=100, save_last=False, save_best='accuracy/top1'))"
    assert train('best_only', changes).status == 0
    folder = workplace / 'counted/best_only'
    assert not (folder / 'last_checkpoint').exists()
    (best,) = folder.glob('best_*.pth')
    step = int(best.stem.rpartition('_')[2])
    resumed = train('best_only', f'{changes}\ntrain_cfg = dict(max_iters=6)', '--resume')
    assert resumed.status == 0, resumed.output
    assert f'training continues from {"counted/best_only"}/{best.name}' in resumed.output
    assert 'the checkpoint has no optimizer' in resumed.output
    assert f'Iter(train) [{step + 1}/6]' in resumed.output
    assert f'Iter(train) [{step}/6]' not in resumed.output
