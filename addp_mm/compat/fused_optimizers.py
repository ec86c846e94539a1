# Copyright (c) addp_mm contributors. Apache-2.0.
"""One fused kernel for a whole optimizer step.

torch runs Adam, AdamW and SGD in a fused kernel only on request. By default it passes over the
parameters several times on a GPU, and updates one parameter after the other on a CPU. mmengine
makes a group for each parameter if there is a ``paramwise_cfg``, and torch steps group by group.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from addp_mm.compat.importing import replace_method

_KERNELS = ('foreach', 'fused')  # options of an optimizer that choose its kernel, not its result


def patch_fused_optimizers(module: Any) -> bool:
    """Make the optimizer of each wrapper use fused kernels, and keep this out of checkpoints.

    Args:
        module: ``mmengine.optim.optimizer.optimizer_wrapper``.

    Returns:
        True.
    """

    def make_init(original):

        def __init__(self, optimizer, *args, **kwargs):
            original(self, optimizer, *args, **kwargs)
            fuse(optimizer)

        return __init__

    def make_update(original):

        def update_params(self, *args, **kwargs):
            try:
                return original(self, *args, **kwargs)
            finally:  # a step that fails has no hook after it
                if self.optimizer in _STEPS:
                    _STEPS[self.optimizer].after_step(self.optimizer)

        return update_params

    replace_method(module.OptimWrapper, '__init__', make_init)
    replace_method(module.OptimWrapper, 'update_params', make_update)
    return True


def fuse(optimizer: Any) -> None:
    """Use fused kernels in the parameter groups whose device and type have them.

    A group keeps its kernel if ``foreach`` or ``fused`` was given. Call it again if the parameters
    have moved to another device.

    Args:
        optimizer: Any optimizer. Other classes than torch's Adam, AdamW and SGD are not changed.
    """
    if not _has_kernels(optimizer):
        return
    if optimizer not in _STEPS:
        _STEPS[optimizer] = _FusedSteps(optimizer)
    _STEPS[optimizer].choose(optimizer)


def _has_kernels(optimizer: Any) -> bool:
    """Whether it is one of these optimizers; the step of a subclass could be another one."""
    from torch import optim

    return type(optimizer) in (optim.Adam, optim.AdamW, optim.SGD)


@lru_cache
def _works(kind: Any, device: Any, dtype: Any) -> bool:
    """Whether a fused step of one number works: torch has no public list of devices and types."""
    import torch

    try:
        number = torch.nn.Parameter(torch.ones(1, device=device, dtype=dtype))
        number.grad = torch.ones_like(number)
        kind([number], lr=0.1, fused=True).step()
    except RuntimeError:
        return False
    return True


class _FusedSteps:
    """Chooses the kernels of an optimizer.

    During a step, fused groups of the same settings are one group.

    Args:
        optimizer: The optimizer; its hooks do the rest.
    """

    def __init__(self, optimizer: Any) -> None:
        self._groups: list[dict] | None = None
        self._chosen: set[int] = set()  # groups whose kernel the user has left open
        optimizer.register_step_pre_hook(self.before_step)
        optimizer.register_step_post_hook(self.after_step)
        optimizer.register_state_dict_post_hook(self._save_own_choice)
        optimizer.register_load_state_dict_pre_hook(_keep_kernels)

    def choose(self, optimizer: Any) -> None:
        """Choose the kernels of all groups whose kernel is open."""
        given = any(optimizer.defaults[key] is not None for key in _KERNELS)
        for index, group in enumerate(optimizer.param_groups):
            own = given or any(group[key] is not None for key in _KERNELS) or group['differentiable']
            if own and index not in self._chosen:
                continue
            self._chosen.add(index)
            kinds = {(parameter.device, parameter.dtype) for parameter in group['params']}
            group['fused'] = all(_works(optimizer.__class__, *kind) for kind in kinds) or None

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # torch gives these
        import torch

        if torch.compiler.is_compiling():
            return  # compiled code has no loop over groups
        merged: dict[tuple, dict] = {}
        for index, group in enumerate(optimizer.param_groups):
            if group['fused']:
                _arrange_gradients(group['params'])
            fused = group['fused'] and _fits(optimizer, group)
            key = tuple(_hashable(group[name]) for name in optimizer.defaults) if fused else (index,)
            if fused:
                key += (frozenset(_momenta(optimizer, group)),)
            first = merged.setdefault(key, {**group, 'fused': fused, 'params': []})
            first['params'].extend(group['params'])
        self._groups, optimizer.param_groups = optimizer.param_groups, list(merged.values())

    def after_step(self, optimizer: Any, *_: Any) -> None:
        if self._groups is not None:
            self._groups, optimizer.param_groups = None, self._groups

    def _save_own_choice(self, optimizer: Any, state_dict: dict) -> None:
        """Save what the user has given, so that a checkpoint fits any device."""
        for index in self._chosen:
            state_dict['param_groups'][index]['fused'] = None


def _keep_kernels(optimizer: Any, state_dict: dict) -> dict:
    """Load the settings of the groups, but not the kernels of the training that has saved them.

    torch moves the step counts of Adam to the device where these kernels need them.
    """
    groups = zip(state_dict['param_groups'], optimizer.param_groups, strict=False)
    kept = [{**saved, **{key: own[key] for key in _KERNELS}} for saved, own in groups]
    return {**state_dict, 'param_groups': kept + state_dict['param_groups'][len(kept) :]}


def _arrange_gradients(parameters: Iterable[Any]) -> None:
    """Give gradients the strides of their parameters.

    A convolution may return others, depending on its input. With the plain kernel for these, the
    weights of several processes would drift apart: it rounds in another way.
    """
    import torch

    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and not gradient.is_sparse and gradient.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


def _fits(optimizer: Any, group: dict) -> bool:
    """Whether the fused kernel gives the result of the plain one for these tensors.

    SGD takes sparse gradients, but not in that kernel, which also wants the momenta of all
    parameters or of none. The kernels read a parameter, its gradient and its state in the order of
    the memory, so that all must lie in the same order without gaps.
    """
    for parameter in group['params']:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse or not _has_no_gaps(parameter):
            return False
        for other in optimizer.state.get(parameter, {}).values():
            if getattr(other, 'shape', None) == parameter.shape and other.stride() != parameter.stride():
                return False
    return len(set(_momenta(optimizer, group))) < 2


def _has_no_gaps(parameter: Any) -> bool:
    import torch

    if parameter.is_contiguous():
        return True
    return parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)


def _momenta(optimizer: Any, group: dict) -> list[bool]:
    """Whether SGD has the momentum of each parameter that gets a step; nothing for other cases."""
    if not group.get('momentum'):
        return []
    states = (optimizer.state.get(parameter, {}) for parameter in group['params'] if parameter.grad is not None)
    return [state.get('momentum_buffer') is not None for state in states]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# the steps of the optimizers that live
_STEPS: MutableMapping[Any, _FusedSteps] = WeakKeyDictionary()
