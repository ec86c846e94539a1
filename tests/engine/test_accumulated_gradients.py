# Copyright (c) addp_mm contributors. Apache-2.0.
import logging

import pytest
import torch
from helpers.tiny_training import TwoLayers, build_runner
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checks.before_training import warn_about_checkpoint_interval
from addp_mm.engine.accumulated_gradients import STATE_KEY

OURS = dict(type='addp_mm.CheckpointHook')
ADAMW = dict(type='AdamW', lr=0.05, weight_decay=0.1)
KINDS = {
    'float32': dict(type='OptimWrapper'),
    'bfloat16': dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False)),
    'clipped': dict(type='OptimWrapper', clip_grad=dict(max_norm=0.5)),
}


class TwoOptimizers(TwoLayers):
    """Each layer has an optimizer of mmengine's OptimWrapperDict."""

    def train_step(self, data, optim_wrapper):
        losses = self(data, mode='loss')
        for wrapper in optim_wrapper.values():
            wrapper.backward(wrapper.scale_loss(losses['loss']), retain_graph=True)
        for wrapper in optim_wrapper.values():
            if wrapper.should_update():
                wrapper.step()
                wrapper.zero_grad()
        return losses


def train(folder, kind, total=8, counts=3, checkpoint=None, hooks=(), **settings):
    model = wrapper = None
    if kind == 'two optimizers':
        model = TwoOptimizers()
        wrapper = OptimWrapperDict(
            backbone=OptimWrapper(torch.optim.Adam(model.backbone.parameters(), lr=0.05), accumulative_counts=counts),
            head=OptimWrapper(torch.optim.Adam(model.head.parameters(), lr=0.05), accumulative_counts=2),
        )
    else:
        wrapper = dict(KINDS[kind], optimizer=ADAMW, accumulative_counts=counts)
    runner = build_runner(
        folder, total, checkpoint=dict(OURS, **(checkpoint or {})), optim_wrapper=wrapper, model=model, **settings
    )
    runner.register_hook(dict(type='addp_mm.RandomStateHook'))
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


@pytest.mark.parametrize('kind', [*KINDS, 'two optimizers'])
def test_a_resume_within_an_optimizer_step_is_exact(tmp_path, kind):
    whole = train(tmp_path / 'whole', kind)
    expected = whole.model.state_dict()
    assert any(not torch.equal(value, TwoLayers().state_dict()[name]) for name, value in expected.items())
    for start in (1, 2, 4):
        resumed = train(tmp_path / str(start), kind, resume=True, load_from=str(tmp_path / f'whole/iter_{start}.pth'))
        found = resumed.model.state_dict()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == [], start
    steps = [STATE_KEY in load_checkpoint_file(tmp_path / f'whole/iter_{number}.pth') for number in range(1, 9)]
    # mmengine's OptimWrapperDict does not know the last iteration, which ends a step otherwise
    within = (1, 2, 3, 4, 5, 7, 8) if kind == 'two optimizers' else (1, 2, 4, 5, 7)
    assert [number for number, is_within in enumerate(steps, 1) if is_within] == list(within)


def test_in_the_middle_of_an_epoch_and_across_epochs(tmp_path):
    """An epoch has 4 iterations, a step 3."""
    settings = dict(total=3, by_epoch=True)
    expected = train(tmp_path / 'whole', 'float32', **settings).model.state_dict()
    for start in (1, 2):
        path = tmp_path / f'whole/epoch_{start}.pth'
        assert STATE_KEY in load_checkpoint_file(path)
        found = train(tmp_path / str(start), 'float32', resume=True, load_from=str(path), **settings).model.state_dict()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == [], start


def test_in_the_background_the_gradients_are_those_of_the_checkpoint(tmp_path):
    expected = train(tmp_path / 'whole', 'float32', checkpoint=dict(background=True)).model.state_dict()
    resumed = train(tmp_path / 'parts', 'float32', resume=True, load_from=str(tmp_path / 'whole/iter_5.pth'))
    assert all(torch.equal(value, resumed.model.state_dict()[name]) for name, value in expected.items())


class Lines(Hook):
    priority = 'VERY_HIGH'

    def before_run(self, runner):
        self.lines = []
        runner.logger.warning = self.lines.append


def test_with_another_number_of_passes_the_gradients_are_left_out(tmp_path):
    train(tmp_path / 'whole', 'float32', total=4)
    lines, gradients = Lines(), []

    class First(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            gradients.append([one.grad for one in runner.model.parameters()])

    path = str(tmp_path / 'whole/iter_2.pth')
    train(tmp_path / 'other', 'float32', total=3, counts=2, hooks=(lines, First()), resume=True, load_from=path)
    assert gradients == [[None] * 4]
    assert sum('of another accumulative_counts: the gradients' in line for line in lines.lines) == 1


def test_load_from_starts_without_gradients(tmp_path):
    train(tmp_path / 'whole', 'float32', total=4)
    gradients = []

    class First(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            gradients.append([one.grad for one in runner.model.parameters()])

    train(tmp_path / 'other', 'float32', total=1, hooks=(First(),), load_from=str(tmp_path / 'whole/iter_2.pth'))
    assert gradients == [[None] * 4]


@pytest.mark.parametrize('hook, warned', [('addp_mm.CheckpointHook', False), ('CheckpointHook', True)])
def test_only_mmengines_hook_causes_a_warning(tmp_path, hook, warned, caplog):
    runner = build_runner(
        tmp_path, 4, checkpoint=dict(type=hook), optim_wrapper=dict(optimizer=ADAMW, accumulative_counts=3), hooks=()
    )
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.logger = logging.getLogger('accumulated')
    warn_about_checkpoint_interval(runner)
    assert ('checkpoint.interval=3' in caplog.text) == warned
