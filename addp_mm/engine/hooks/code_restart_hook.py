# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reset the optimizer's state of re-initialised codes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class CodeRestartHook(Hook):
    """Sets the optimizer's moments of re-initialised codes to zero.

    :class:`~addp_mm.models.selfsup.TokenizerPretrain` samples unused codes again from the latents.
    The moments of the old values would push such a code away from its new value. The hook resets
    them before the optimizer's step of the same iteration. (A codebook with ``'ema'`` has no
    optimizer and resets its own means.)
    """

    def before_train(self, runner: Runner) -> None:
        """Register a function that runs before each step of the codes' optimizer."""
        model = bare_model(runner)
        if not hasattr(model, 'restarted'):
            raise TypeError(
                f'{type(model).__name__} restarts no codes; CodeRestartHook belongs in the config of a '
                'tokenizer training only'
            )
        self.codes: Tensor = model.tokenizer.codes.weight
        wrappers = runner.optim_wrapper.values() if hasattr(runner.optim_wrapper, 'values') else [runner.optim_wrapper]
        for wrapper in wrappers:
            if any(parameter is self.codes for group in wrapper.param_groups for parameter in group['params']):
                self.handle = wrapper.optimizer.register_step_pre_hook(
                    lambda optimizer, *_: self._reset(model, optimizer)
                )

    def after_train(self, runner: Runner) -> None:
        """Remove that function."""
        if hasattr(self, 'handle'):
            self.handle.remove()

    @torch.no_grad()
    def _reset(self, model: Any, optimizer: Optimizer) -> None:
        if model.restarted is None:
            return
        for value in optimizer.state.get(self.codes, {}).values():
            if isinstance(value, Tensor) and value.shape == self.codes.shape:
                value[model.restarted] = 0.0
        model.restarted = None
