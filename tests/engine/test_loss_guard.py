# Copyright (c) addp_mm contributors. Apache-2.0.
import math
from pathlib import Path

import pytest
import torch
from helpers.tiny_pretraining import build_runner
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel

from addp_mm.engine.hooks import LossGuard, TrainingCollapsedError

STAGES = Path(__file__).parents[2] / 'configs/_base_/own_data'


@pytest.mark.parametrize('loss', [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_fails_at_once(loss):
    assert str(loss) in LossGuard(window=50).check(loss)


def test_a_rise_of_the_running_mean_fails_and_a_single_peak_does_not():
    guard = LossGuard(max_rise=1.0, window=4)
    assert all(guard.check(loss) is None for loss in (5.0, 4.0, 4.0, 4.0, 4.0, 7.0, 4.0, 4.0, 4.0))
    assert guard.lowest == 4.0
    verdicts = [guard.check(loss) for loss in (5.5, 5.5, 5.5)]
    assert verdicts[:2] == [None, None]
    assert 'lowest value 4' in verdicts[2]
    assert '5.125' in verdicts[2]


def test_a_mean_below_the_floor_fails():
    guard = LossGuard(floor=0.5, window=2)
    assert guard.check(0.0) is None
    assert guard.check(1.1) is None
    assert 'floor 0.5' in guard.check(-0.2)


def test_checks_can_be_switched_off():
    guard = LossGuard(floor=-math.inf, max_rise=math.inf, window=1)
    assert [guard.check(loss) for loss in (1.0, 100.0, -5.0)] == [None] * 3


def test_state_continues_where_it_stopped():
    losses = [3.0, 2.0, 2.5, 2.0, 3.5, 3.9]
    whole, first, second = (LossGuard(max_rise=1.0, window=2) for _ in range(3))
    verdicts = [whole.check(loss) for loss in losses]
    parts = [first.check(loss) for loss in losses[:3]]
    second.load(first.state())
    parts += [second.check(loss) for loss in losses[3:]]
    assert parts == verdicts
    assert verdicts[-1] is not None


@pytest.mark.parametrize('options', [dict(window=0), dict(max_rise=0.0)])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match='positive'):
        LossGuard(**options)


def test_the_hook_stops_before_non_finite_weights_are_saved(tmp_path):

    class Mean(BaseModel):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, inputs, data_samples=None, mode='loss'):
            return dict(loss=self.factor * inputs.float().mean())

    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 3:
                torch.nn.init.constant_(runner.model.factor, math.nan)

    runner = build_runner(tmp_path, model=Mean(), custom_hooks=[dict(type='addp_mm.FiniteLossHook'), Poison()])
    with pytest.raises(TrainingCollapsedError, match='iteration 4: the loss is nan.*learning rate'):
        runner.train()
    assert [path.name for path in tmp_path.glob('iter_*.pth')] == ['iter_2.pth']


@pytest.mark.parametrize('path', sorted(STAGES.glob('*_*.py')), ids=lambda path: path.stem)
def test_every_stage_on_own_images_stops_at_non_finite_values(path):
    hooks = {hook.type for hook in Config.fromfile(path).custom_hooks}
    stopping = {'AdversarialStartHook', 'FiniteLossHook', 'GenerativePretrainHook'}
    assert len(hooks & {f'addp_mm.{name}' for name in stopping}) == 1
