# Copyright (c) addp_mm contributors. Apache-2.0.
"""Automatic mixed precision on the CPU."""

from typing import Any

from addp_mm.compat.importing import replace_method
from addp_mm.errors import UserError


class PrecisionError(UserError, ValueError):
    """The device cannot train in this dtype."""


def patch_amp_optim_wrapper(module: Any) -> bool:
    """Make ``AmpOptimWrapper`` train in bfloat16 on the CPU, which mmengine refuses.

    With an accelerator the original runs.

    Args:
        module: ``mmengine.optim.optimizer.amp_optimizer_wrapper``.

    Returns:
        True.
    """
    replace_method(module.AmpOptimWrapper, '__init__', lambda original: _make_init(original, module))
    return True


def _make_init(original, module: Any):

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        from addp_mm.compat.distributed import has_accelerator

        if has_accelerator():
            original(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        import torch

        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise PrecisionError(
                f'AmpOptimWrapper(dtype={dtype!r}): on the CPU mixed precision works in bfloat16 only. '
                "Set dtype='bfloat16' (--amp bfloat16), or train on a GPU."
            )
        module.OptimWrapper.__init__(self, **kwargs)
        # bfloat16 has the range of float32 and needs no scaling
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self.cast_dtype = torch.bfloat16

    return __init__
