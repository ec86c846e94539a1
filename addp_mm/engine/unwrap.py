# Copyright (c) addp_mm contributors. Apache-2.0.
"""The model inside its wrappers, the hook that saves, and private state of a runner."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def bare_model(runner: Runner) -> Any:
    """The runner's model without the wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def find_checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    """The runner's CheckpointHook, if it has one."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def is_resuming(runner: Runner) -> bool:
    """Whether the checkpoint that is being loaded resumes a training, not only loads weights."""
    return bool(runner._resume)  # noqa: SLF001  # mmengine has no public attribute for it
