# Copyright (c) addp_mm contributors. Apache-2.0.
"""One fused kernel for a whole optimizer step.

torch runs Adam, AdamW and SGD in a fused kernel only on request. By default it passes over the
parameters several times on a GPU, and updates one parameter after the other on a CPU. mmengine
makes a group for each parameter if there is a ``paramwise_cfg``, and torch steps group by group.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from addp_mm.compat.importing import replace_method

_KERNELS = ('foreach', 'fused')  # options of an optimizer that choose its kernel, not its result


def patch_fused_optimizers(module: Any) -> bool:
    """Make the optimizer of each wrapper use fused kernels, and keep this out of checkpoints.

    Args:
        module: ``mmengine.optim.optimizer.optimizer_wrapper``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, optimizer, *args, **kwargs):
            original(self, optimizer, *args, **kwargs)
            if _has_kernels(optimizer):
                together = _FusedTogether()
                optimizer.register_step_pre_hook(together.before_step)
                optimizer.register_step_post_hook(together.after_step)
                optimizer.register_state_dict_post_hook(_save_own_choice)
                optimizer.register_load_state_dict_pre_hook(_keep_kernels)
                fuse(optimizer)

        return __init__

    replace_method(module.OptimWrapper, '__init__', make)
    return True


def fuse(optimizer: Any) -> None:
    """Use fused kernels in the parameter groups whose device and type have them.

    A group keeps its kernel if ``foreach`` or ``fused`` was given. Call it again if the parameters
    have moved to another device.

    Args:
        optimizer: Any optimizer. Other classes than torch's Adam, AdamW and SGD are not changed.
    """
    for group in optimizer.param_groups if _has_kernels(optimizer) else ():
        if _is_free(optimizer, group):
            kinds = {(parameter.device, parameter.dtype) for parameter in group['params']}
            group['fused'] = all(_works(optimizer.__class__, *kind) for kind in kinds) or None


def _has_kernels(optimizer: Any) -> bool:
    """Whether it is one of these optimizers; the step of a subclass could be another one."""
    from torch import optim

    return type(optimizer) in (optim.Adam, optim.AdamW, optim.SGD)


def _is_free(optimizer: Any, group: dict) -> bool:
    """Whether the user has left the kernel of a group open."""
    given = any(optimizer.defaults[key] is not None for key in _KERNELS)
    own = group['foreach'] is not None or group['fused'] is False
    return not (given or own or group['differentiable'])


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


def _save_own_choice(optimizer: Any, state_dict: dict) -> None:
    """Save what the user has given, so that a checkpoint fits any device."""
    for group in state_dict['param_groups']:
        if _is_free(optimizer, group):
            group['fused'] = None


def _keep_kernels(optimizer: Any, state_dict: dict) -> dict:
    """Load the settings of the groups, but not the kernels of the training that has saved them.

    torch moves the step counts of Adam to the device where these kernels need them.
    """
    groups = zip(state_dict['param_groups'], optimizer.param_groups, strict=False)
    kept = [{**saved, **{key: own[key] for key in _KERNELS}} for saved, own in groups]
    return {**state_dict, 'param_groups': kept + state_dict['param_groups'][len(kept) :]}


class _FusedTogether:
    """Hooks of an optimizer: fused groups of the same settings are one group during a step."""

    def __init__(self) -> None:
        self._groups: list[dict] | None = None

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # torch gives these
        import torch

        self.after_step(optimizer)  # if the last step has failed
        if torch.compiler.is_compiling():
            return  # compiled code has no loop over groups
        merged: dict[tuple, dict] = {}
        for index, group in enumerate(optimizer.param_groups):
            fused = group['fused'] and not _has_sparse_gradients(group)
            key = tuple(_hashable(group[name]) for name in optimizer.defaults) if fused else (index,)
            first = merged.setdefault(key, {**group, 'fused': fused, 'params': []})
            first['params'].extend(group['params'])
        self._groups, optimizer.param_groups = optimizer.param_groups, list(merged.values())

    def after_step(self, optimizer: Any, *_: Any) -> None:
        if self._groups is not None:
            self._groups, optimizer.param_groups = None, self._groups


def _has_sparse_gradients(group: dict) -> bool:
    """Whether a gradient is sparse: SGD takes it, but not in its fused kernel."""
    return any(parameter.grad is not None and parameter.grad.is_sparse for parameter in group['params'])


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
