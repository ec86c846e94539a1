# Copyright (c) addp_mm contributors. Apache-2.0.
"""Automatic mixed precision on the CPU."""

from types import ModuleType

from addp_mm.compat.importing import replace_method
from addp_mm.errors import UserError


class PrecisionError(UserError, ValueError):
    """A number type that the device cannot train in."""


def mend_amp_optim_wrapper(module: ModuleType) -> None:
    """Let ``AmpOptimWrapper`` train in bfloat16 where there is no accelerator.

    mmengine's refuses to be built there, though its autocast knows the CPU. With an accelerator the
    original runs. Applied to ``mmengine.optim.optimizer.amp_optimizer_wrapper``.
    """
    replace_method(module.AmpOptimWrapper, '__init__', lambda original: _make_init(original, module))


def _make_init(original, module: ModuleType):

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        from addp_mm.compat.distributed import has_accelerator

        if has_accelerator():
            original(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        import torch

        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise PrecisionError(
                f'AmpOptimWrapper(dtype={dtype!r}): on the CPU mixed precision runs in bfloat16 only. '
                "Say dtype='bfloat16' (--amp bfloat16), or train on a GPU."
            )
        module.OptimWrapper.__init__(self, **kwargs)
        # bfloat16 has float32's range: there is nothing to scale, and a scaler that is off passes
        # all calls through.
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self.cast_dtype = torch.bfloat16

    return __init__
