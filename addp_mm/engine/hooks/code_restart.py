# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class CodeRestartHook(Hook):
    """Makes the optimizer forget the moments of codes that were drawn anew.

    A code that :class:`~addp_mm.models.selfsup.TokenizerPretrain` has put in another place would
    otherwise be pushed on by what its old place had gathered. The moments are set to zero before
    the step of that very iteration. (An EMA codebook has no optimizer; its own means start over by
    themselves.)
    """

    def before_train(self, runner: Runner) -> None:
        model = bare_model(runner)
        if not hasattr(model, 'redrawn'):
            raise TypeError(
                f'{type(model).__name__} draws no codes anew; CodeRestartHook belongs into the config of a '
                'tokenizer training alone'
            )
        self.codes = model.tokenizer.codes.weight
        wrappers = runner.optim_wrapper.values() if hasattr(runner.optim_wrapper, 'values') else [runner.optim_wrapper]
        for wrapper in wrappers:
            if any(parameter is self.codes for group in wrapper.param_groups for parameter in group['params']):
                self.handle = wrapper.optimizer.register_step_pre_hook(
                    lambda optimizer, *_: self._forget(model, optimizer)
                )

    def after_train(self, runner: Runner) -> None:
        if hasattr(self, 'handle'):
            self.handle.remove()

    @torch.no_grad()
    def _forget(self, model: torch.nn.Module, optimizer: Optimizer) -> None:
        if model.redrawn is None:
            return
        for value in optimizer.state.get(self.codes, {}).values():
            if isinstance(value, Tensor) and value.shape == self.codes.shape:
                value[model.redrawn] = 0.0
        model.redrawn = None
