# Copyright (c) addp_mm contributors. Apache-2.0.
"""Automatic mixed precision on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from addp_mm.compat.importing import replace_method
from addp_mm.errors import UserError


class PrecisionError(UserError, ValueError):
    """The device cannot train in this dtype."""


def patch_amp_optim_wrapper(module: Any) -> bool:
    """Make ``AmpOptimWrapper`` train in bfloat16 and float16 on the CPU, which mmengine refuses.

    With an accelerator the original runs.

    Args:
        module: ``mmengine.optim.optimizer.amp_optimizer_wrapper``.

    Returns:
        True.
    """
    replace_method(module.AmpOptimWrapper, '__init__', lambda original: _make_init(original, module))
    replace_method(module.AmpOptimWrapper, 'optim_context', lambda original: _make_context(original, module))
    return True


def _make_init(original, module: Any):

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        from addp_mm.compat.distributed import has_accelerator

        if has_accelerator():
            original(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        import torch

        name = 'bfloat16' if dtype is None else str(dtype).removeprefix('torch.')
        if name not in ('bfloat16', 'float16'):
            raise PrecisionError(
                f'AmpOptimWrapper(dtype={dtype!r}): on the CPU mixed precision works in bfloat16 and float16. '
                "Set dtype='bfloat16' (--amp bfloat16), or train on a GPU."
            )
        if name == 'bfloat16':  # it has the range of float32 and needs no scaling
            loss_scale = dict(enabled=False)
        with _scaling_on_the_cpu(module):
            original(self, loss_scale=loss_scale, dtype=getattr(torch, name), **kwargs)

    return __init__


@contextmanager
def _scaling_on_the_cpu(module: Any) -> Iterator[None]:
    import torch

    replaced = module.is_cuda_available, module.GradScaler
    module.is_cuda_available, module.GradScaler = lambda: True, partial(torch.amp.GradScaler, 'cpu')
    try:
        yield
    finally:
        module.is_cuda_available, module.GradScaler = replaced


def _make_context(original, module: Any):

    @contextmanager
    def optim_context(self, model):
        import torch

        from addp_mm.compat.distributed import has_accelerator

        if self.cast_dtype is not torch.float16 or has_accelerator():
            with original(self, model):
                yield
            return
        # mmengine's autocast accepts bfloat16 only
        with module.OptimWrapper.optim_context(self, model), torch.autocast('cpu', torch.float16):
            yield

    return optim_context
