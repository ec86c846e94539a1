# Copyright (c) addp_mm contributors. Apache-2.0.
"""The model inside its wrappers."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def bare_model(runner: Runner) -> nn.Module:
    """The runner's model without a wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
