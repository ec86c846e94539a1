# Copyright (c) addp_mm contributors. Apache-2.0.
"""Keep the gradients of an optimizer step that is not complete when a checkpoint is saved.

With ``accumulative_counts`` an optimizer step adds the gradients of several iterations. mmengine's
checkpoints hold none of them: a resume in the middle of a step would lose its first iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.engine.strategies.sharded import is_sharded
from addp_mm.engine.unwrap import bare_model

STATE_KEY = 'accumulated_gradients'


def can_be_kept(runner: Runner) -> bool:
    """Whether each process has whole gradients: not with sharded weights or DeepSpeed."""
    return not is_sharded(runner.model) and all(isinstance(one, OptimWrapper) for one in _wrappers(runner).values())


def would_be_lost(runner: Runner) -> bool:
    """Whether a checkpoint that is saved now loses gradients of an unfinished optimizer step."""
    wrappers = [one for one in _wrappers(runner).values() if isinstance(one, OptimWrapper)]
    return not can_be_kept(runner) and any(not one.should_update() for one in wrappers)


def of_unfinished_steps(runner: Runner) -> dict | None:
    """Gradients of the optimizer steps that need more iterations, with their positions.

    All processes call it together. The gradients are the mean over the processes, because DDP only
    reduces them in the last iteration of a step.

    Returns:
        ``gradients`` by name of the parameter, and ``passes``, the number of backward passes of
        each optimizer wrapper ('' if there is only one); None if all steps are complete.
    """
    if not can_be_kept(runner):
        return None
    unfinished = {name: one for name, one in _wrappers(runner).items() if not one.should_update()}
    if not unfinished:
        return None
    names = _names(runner)
    parameters = {names[id(one)]: one for wrapper in unfinished.values() for one in _parameters(wrapper)}
    # a parameter may have a gradient on some processes only
    has_one = torch.tensor([float(one.grad is not None) for one in parameters.values()])
    dist.all_reduce(has_one)
    gradients = {
        name: _mean(parameter) for (name, parameter), count in zip(parameters.items(), has_one, strict=True) if count
    }
    # mmengine has no public attribute for the number of backward passes
    return dict(gradients=gradients, passes={name: one._inner_count for name, one in unfinished.items()})  # noqa: SLF001


def put_back(runner: Runner, state: Mapping[str, Any]) -> None:
    """Give the parameters the gradients of a checkpoint, before training continues.

    Args:
        runner: A runner whose iteration is set.
        state: Result of :func:`of_unfinished_steps`.
    """
    names, gradients = _names(runner), state['gradients']
    for name, wrapper in _wrappers(runner).items():
        if name not in state['passes']:
            continue
        # a resume does not set the counts of mmengine's OptimWrapperDict
        wrapper._inner_count = state['passes'][name]  # noqa: SLF001  # no public attribute
        if wrapper.should_update():
            runner.logger.warning(
                'the checkpoint was saved within an optimizer step of another accumulative_counts: the gradients of '
                'that step are left out'
            )
            continue
        runner.logger.info('the optimizer step within which the checkpoint was saved continues with its gradients')
        for parameter in _parameters(wrapper):
            gradient = gradients.get(names[id(parameter)])
            if gradient is not None:
                parameter.grad = gradient.to(parameter, copy=True)


def _wrappers(runner: Runner) -> dict[str, Any]:
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def _names(runner: Runner) -> dict[int, str]:
    return {id(one): strip_wrappers(name) for name, one in bare_model(runner).named_parameters()}


def _parameters(wrapper: OptimWrapper) -> list[Tensor]:
    return [one for group in wrapper.optimizer.param_groups for one in group['params']]


def _mean(parameter: Tensor) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    dist.all_reduce(gradient, 'mean')
    return gradient.cpu()
