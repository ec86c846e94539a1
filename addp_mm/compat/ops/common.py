# Copyright (c) addp_mm contributors. Apache-2.0.
"""Common to all operators: table, device, no gradients, no autocast, float32 at least."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from .fallback import compute, device_of

OPS: dict[str, Callable] = {}


def mmcv_op(function: Callable, name: str = '') -> Callable:
    """Add an operator to :data:`OPS`, to run without autograd and autocast as compiled ones do.

    Where the device of its tensors lacks a kernel, it runs on the CPU.

    Args:
        function: The operator.
        name: Its name in mmcv. Defaults to '', which means that of the function.
    """

    @functools.wraps(function)
    def run(*args, **kwargs):
        with torch.no_grad(), _no_autocast(device_of(args, kwargs).type):
            return compute(function, args, kwargs)

    OPS[name or function.__name__] = run
    return run


def _no_autocast(kind: str) -> AbstractContextManager:
    """A context without autocast, on a kind of device that may not have any."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of the computation: float64 if a tensor is float64, otherwise float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


@contextmanager
def allow_atomics() -> Iterator[None]:
    """Allow atomic additions in torchvision's kernels, even if torch must be deterministic.

    No deterministic kernel exists, and mmcv's compiled kernels add atomically too. torch then warns
    instead of refusing.
    """
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True)
