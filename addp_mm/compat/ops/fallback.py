# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators that a device cannot compute run on the CPU: the only place where they do."""

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ON_CPU: set[str] = set()  # operators that are always computed on the CPU
_FELL_BACK: set[tuple[str, str]] = set()  # operators and kinds of devices, said once each
# Errors of missing kernels differ by device; MPS has TypeErrors for dtypes and RuntimeErrors.
_NO_KERNEL = re.compile(r"not (currently )?(implemented|supported)|n[o']t support|could not run", re.IGNORECASE)


def device_of(args: tuple, kwargs: dict[str, Any]) -> torch.device:
    """The device of the first tensor of a call."""
    return next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def computed_on_cpu(function: Callable) -> Callable:
    """Compute an operator on the CPU, whatever the device of its tensors: its steps need numpy."""
    ON_CPU.add(function.__name__)

    @functools.wraps(function)
    def run(*args, **kwargs):
        device = device_of(args, kwargs)
        if device.type == 'cpu':
            return function(*args, **kwargs)
        _say_once(function.__name__, device.type, 'its steps need one another, so it has no kernel for a GPU')
        return _on_cpu(function, device, args, kwargs)

    return run


def compute(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute an operator on the device of its tensors, or on the CPU if a kernel is missing there.

    Args:
        function: The operator.
        args: Its positional arguments.
        kwargs: Its other arguments.

    Returns:
        Its result, on the device of the tensors. Tensors that it fills are filled there.
    """
    device = device_of(args, kwargs)
    if device.type == 'cpu':
        return function(*args, **kwargs)
    if (function.__name__, device.type) in _FELL_BACK and function.__name__ not in ON_CPU:
        return _on_cpu(function, device, args, kwargs)
    before = _versions((*args, *kwargs.values()))
    try:
        return function(*args, **kwargs)
    except (NotImplementedError, TypeError, RuntimeError) as error:
        # what was filled already cannot be undone
        if not _is_missing_kernel(error, device.type) or before != _versions((*args, *kwargs.values())):
            raise
        result = _on_cpu(function, device, args, kwargs)
        _say_once(function.__name__, device.type, str(error).strip().partition('\n')[0])
        return result


def fallen_back(kind: str) -> set[str]:
    """Operators that are computed on the CPU for tensors on a kind of device, as far as known."""
    return ON_CPU | {name for name, where in _FELL_BACK if where == kind}


def _is_missing_kernel(error: Exception, kind: str) -> bool:
    return isinstance(error, NotImplementedError) or kind != 'cuda' and bool(_NO_KERNEL.search(str(error)))


def _on_cpu(function: Callable, device: torch.device, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a function with copies of tensors; copy back what it has filled and what it returns."""
    copies = {id(value): (value, value.cpu()) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
    before = _versions(copy for _, copy in copies.values())

    def copied(value: Any) -> Any:
        return copies[id(value)][1] if isinstance(value, Tensor) else value

    result = function(*map(copied, args), **{name: copied(value) for name, value in kwargs.items()})
    for (tensor, copy), version in zip(copies.values(), before, strict=True):
        if copy is not tensor and _versions([copy]) != [version]:
            tensor.copy_(copy)
    return _moved(result, device)


def _moved(result: Any, device: torch.device) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_moved(each, device) for each in result)
    return result.to(device) if isinstance(result, Tensor) else result


def _versions(values: Any) -> list[int]:
    """How often each tensor was changed in place."""
    return [value._version for value in values if isinstance(value, Tensor)]  # noqa: SLF001  # its only name


def _say_once(name: str, kind: str, reason: str) -> None:
    if (name, kind) in _FELL_BACK:
        return
    _FELL_BACK.add((name, kind))
    import logging

    from mmengine.logging import print_log

    text = f"mmcv's operator {name} is computed on the CPU, its tensors are copied from and to {kind}: {reason}"
    print_log(text, logger='current', level=logging.WARNING)
