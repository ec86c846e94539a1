# Copyright (c) addp_mm contributors. Apache-2.0.
"""What all operators share: no gradient recording, no autocast, float32 at least."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def mmcv_op(function: Callable) -> Callable:
    """Run an operator as a compiled kernel runs: outside autograd, and in the dtypes it was given under autocast."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        device = next(a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays float64; everything else is computed in float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@contextmanager
def allow_atomics() -> Iterator[None]:
    """Let torchvision's kernels add atomically although deterministic algorithms are demanded.

    mmcv's compiled kernels do the same without a word; here torch warns instead of refusing,
    because no deterministic kernel exists to be chosen.
    """
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True)
