# Copyright (c) addp_mm contributors. Apache-2.0.
"""Distributed training without CUDA: the backend of the device; wrappers without device ids."""

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from addp_mm.compat.device_kinds import device_kind, is_known
from addp_mm.compat.importing import ModuleView, replace, replace_method
from addp_mm.errors import UserError


class BackendError(UserError, RuntimeError):
    """torch has no backend that exchanges tensors of this kind of device."""


def patch_init_dist(module: Any) -> bool:
    """Make every launcher start without CUDA, with torch's backend of the device instead of nccl.

    mmengine calls ``torch.cuda.set_device`` first, which fails without a driver, and exchanges
    tensors on the CPU unless it knows the backend. On CUDA and other accelerators that mmengine
    knows, the original runs.

    Args:
        module: ``mmengine.dist.utils``.

    Returns:
        True.
    """

    def make_init(original):

        def init_dist(launcher, backend='nccl', *args, **kwargs):
            kind = device_kind()
            if is_known(kind):
                original(launcher, backend, *args, **kwargs)
                return
            with _devices_of(kind, module):
                original(launcher, _backend_of(kind) if backend == 'nccl' else backend, *args, **kwargs)

        return init_dist

    def make_device(original):

        def get_comm_device(group=None):
            kind, backend = device_kind(), module.get_backend(group)
            if is_known(kind) or backend in (None, 'gloo', 'mpi') or backend != _backend_of(kind):
                return original(group)
            torch = module.torch
            return torch.device(kind, torch.accelerator.current_device_index())

        return get_comm_device

    replace(module, 'init_dist', make_init)
    replace(module, 'get_comm_device', make_device)
    return True


def _backend_of(kind: str) -> str:
    """The backend of ``torch.distributed`` for a kind of device: gloo for the CPU, xccl for XPU.

    Raises:
        BackendError: This torch has none.
    """
    import torch

    backend = torch.distributed.Backend.default_device_backend_map.get(kind)
    if backend is None:
        raise BackendError(
            f'torch {torch.__version__} exchanges no tensors between processes on {kind}: train in one process, '
            'without --launcher'
        )
    return backend


@contextlib.contextmanager
def _devices_of(kind: str, module: Any) -> Iterator[None]:
    """Replace the functions of CUDA that a launcher calls by those of another kind of device."""
    torch = module.torch
    on_cpu = kind == 'cpu'
    module.torch = ModuleView(
        'torch',
        cuda=SimpleNamespace(
            set_device=getattr(torch.get_device_module(kind), 'set_device', lambda device: None),
            device_count=lambda: (os.cpu_count() if on_cpu else torch.accelerator.device_count()) or 1,
        ),
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
    """Refuse ``sync_bn`` when the model is built, on devices where its first forward pass fails.

    Args:
        module: ``mmengine.model.utils``.

    Returns:
        True.
    """

    def make(original):

        def convert_sync_batchnorm(module, implementation='torch'):
            kind = device_kind()
            if kind in ('cpu', 'mps'):
                raise RuntimeError(
                    f"sync_bn='{implementation}' needs a GPU of CUDA, ROCm or XPU: synchronised batch norm has no "
                    f'{kind.upper()} kernel. Remove sync_bn from the config (--cfg-options sync_bn=None).'
                )
            return original(module, implementation)

        return convert_sync_batchnorm

    replace(module, 'convert_sync_batchnorm', make)
    return True
