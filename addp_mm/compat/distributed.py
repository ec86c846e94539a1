# Copyright (c) addp_mm contributors. Apache-2.0.
"""Distributed training without an accelerator: gloo, and wrappers without device ids."""

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from addp_mm.compat.importing import ModuleView, replace, replace_method


def has_accelerator() -> bool:
    """Whether mmengine would train on another device than the CPU."""
    from mmengine.device import get_device

    return get_device() != 'cpu'


def patch_init_dist(module: Any) -> bool:
    """Make every launcher start on the CPU, with gloo instead of nccl.

    mmengine calls ``torch.cuda.set_device`` first, which fails without a driver. With an
    accelerator the original runs.

    Args:
        module: ``mmengine.dist.utils``.

    Returns:
        True.
    """

    def make(original):

        def init_dist(launcher, backend='nccl', *args, **kwargs):
            if has_accelerator():
                original(launcher, backend, *args, **kwargs)
                return
            with _without_devices(module):
                original(launcher, 'gloo' if backend == 'nccl' else backend, *args, **kwargs)

        return init_dist

    replace(module, 'init_dist', make)
    return True


@contextlib.contextmanager
def _without_devices(module: Any) -> Iterator[None]:
    """Replace the GPU functions that a launcher calls."""
    torch = module.torch
    module.torch = ModuleView(
        'torch', cuda=SimpleNamespace(set_device=lambda device: None, device_count=lambda: os.cpu_count() or 1)
    )
    try:
        yield
    finally:
        module.torch = torch


def patch_ddp(module: Any) -> bool:
    """Wrap a model on the CPU without ``device_ids``, which torch's DDP refuses there.

    A model on an accelerator is wrapped as before.

    Args:
        module: ``mmengine.model.wrappers.distributed``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, module, *args, **kwargs):
            parameter = next(module.parameters(), None)
            if parameter is not None and parameter.device.type == 'cpu':
                kwargs['device_ids'] = None
            original(self, module, *args, **kwargs)

        return __init__

    replace_method(module.MMDistributedDataParallel, '__init__', make)
    return True


def patch_sync_batchnorm(module: Any) -> bool:
    """Refuse ``sync_bn`` on the CPU when the model is built, not in its first forward pass.

    Args:
        module: ``mmengine.model.utils``.

    Returns:
        True.
    """

    def make(original):

        def convert_sync_batchnorm(module, implementation='torch'):
            if not has_accelerator():
                raise RuntimeError(
                    f"sync_bn='{implementation}' needs a GPU: synchronised batch norm has no CPU "
                    'kernel. Remove sync_bn from the config (--cfg-options sync_bn=None).'
                )
            return original(module, implementation)

        return convert_sync_batchnorm

    replace(module, 'convert_sync_batchnorm', make)
    return True
