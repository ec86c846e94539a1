# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a hook stores in a checkpoint belongs to the iteration of the checkpoint."""

import inspect

import pytest
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import get_priority

from addp_mm.engine.hooks import StopHook
from addp_mm.registry import HOOKS

STORING = {
    name: kind
    for name, kind in HOOKS.module_dict.items()
    if inspect.isclass(kind)
    and kind.before_save_checkpoint is not Hook.before_save_checkpoint
    and not issubclass(kind, (CheckpointHook, StopHook))  # StopHook only marks its own checkpoint
}


def test_there_are_such_hooks():
    assert {'AdversarialStartHook', 'RandomStateHook'} <= STORING.keys()


@pytest.mark.parametrize('name', STORING)
def test_a_hook_gathers_before_the_checkpoint_is_written(name):
    """CheckpointHook saves in after_train_iter or after_train_epoch, in the order of priorities."""
    assert get_priority(STORING[name].priority) < get_priority(CheckpointHook.priority), (
        f'{name}.before_save_checkpoint would store the state of the iteration before'
    )
