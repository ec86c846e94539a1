# Copyright (c) addp_mm contributors. Apache-2.0.
"""Automatic mixed precision on devices where mmengine refuses it: the CPU, XPU and MPS."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from addp_mm.compat.device_kinds import device_kind, is_known
from addp_mm.compat.importing import replace, replace_method
from addp_mm.errors import UserError


class PrecisionError(UserError, ValueError):
    """The device cannot train in this dtype."""


def patch_autocast(module: Any) -> bool:
    """Make mmengine's ``autocast`` accept every device and dtype that ``torch.autocast`` accepts.

    On CUDA and other accelerators that mmengine knows, the original runs.

    Args:
        module: ``mmengine.runner.amp``.

    Returns:
        True.
    """

    def make(original):

        def autocast(device_type=None, dtype=None, enabled=True, cache_enabled=None):
            import torch

            kind = device_type or device_kind()
            if is_known(kind):
                return original(device_type, dtype, enabled, cache_enabled)
            return torch.autocast(kind, dtype, enabled, cache_enabled)

        return autocast

    replace(module, 'autocast', make)
    return True


def patch_amp_optim_wrapper(module: Any) -> bool:
    """Make ``AmpOptimWrapper`` train in bfloat16 and float16 on devices that mmengine refuses.

    On CUDA and other accelerators that mmengine knows, the original runs.

    Args:
        module: ``mmengine.optim.optimizer.amp_optimizer_wrapper``.

    Returns:
        True.
    """
    replace_method(module.AmpOptimWrapper, '__init__', lambda original: _make_init(original, module))
    return True


def _make_init(original, module: Any):

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        kind = device_kind()
        if is_known(kind):
            original(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        import torch

        name = 'bfloat16' if dtype is None else str(dtype).removeprefix('torch.')
        if name not in ('bfloat16', 'float16'):
            where = 'the CPU' if kind == 'cpu' else kind
            raise PrecisionError(
                f'AmpOptimWrapper(dtype={dtype!r}): on {where} mixed precision works in bfloat16 and float16. '
                "Set dtype='bfloat16' (--amp bfloat16), or train on a GPU."
            )
        if name == 'bfloat16':  # it has the range of float32 and needs no scaling
            loss_scale = dict(enabled=False)
        with _scaling_on(kind, module):
            original(self, loss_scale=loss_scale, dtype=getattr(torch, name), **kwargs)

    return __init__


@contextmanager
def _scaling_on(kind: str, module: Any) -> Iterator[None]:
    import torch

    replaced = module.is_cuda_available, module.GradScaler
    module.is_cuda_available, module.GradScaler = lambda: True, partial(torch.amp.GradScaler, kind)
    try:
        yield
    finally:
        module.is_cuda_available, module.GradScaler = replaced
