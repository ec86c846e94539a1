# Copyright (c) addp_mm contributors. Apache-2.0.
"""Distributed training where there is no accelerator: gloo, and wrappers without device ids."""

import contextlib
import os
from types import ModuleType, SimpleNamespace

from addp_mm.compat.importing import replace, replace_method


def has_accelerator() -> bool:
    """Whether mmengine would train on anything but the CPU."""
    from mmengine.device import get_device

    return get_device() != 'cpu'


def mend_init_dist(module: ModuleType) -> None:
    """Let every launcher start on the CPU, with gloo in the place of nccl.

    mmengine calls ``torch.cuda.set_device`` first, which fails without a driver. With an
    accelerator the original runs. Applied to ``mmengine.dist.utils``.
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


class TorchView(ModuleType):
    """The module torch as one other module sees it: some names replaced, all others torch's own."""

    def __init__(self, **replaced) -> None:
        super().__init__('torch')
        self.__dict__.update(replaced)

    def __getattr__(self, name: str):
        import torch

        return getattr(torch, name)


@contextlib.contextmanager
def _without_devices(module: ModuleType):
    torch = module.torch
    module.torch = TorchView(
        cuda=SimpleNamespace(set_device=lambda device: None, device_count=lambda: os.cpu_count() or 1)
    )
    try:
        yield
    finally:
        module.torch = torch


def mend_ddp(module: ModuleType) -> None:
    """Wrap a model on the CPU without ``device_ids``, which torch's DDP refuses there.

    Applied to ``mmengine.model.wrappers.distributed``. A model on an accelerator is wrapped as
    before.
    """

    def make(original):

        def __init__(self, module, *args, **kwargs):
            parameter = next(module.parameters(), None)
            if parameter is not None and parameter.device.type == 'cpu':
                kwargs['device_ids'] = None
            original(self, module, *args, **kwargs)

        return __init__

    replace_method(module.MMDistributedDataParallel, '__init__', make)


def mend_sync_batchnorm(module: ModuleType) -> None:
    """Refuse ``sync_bn`` on the CPU when the model is built, not in its first forward.

    Applied to ``mmengine.model.utils``.
    """

    def make(original):

        def convert_sync_batchnorm(module, implementation='torch'):
            if not has_accelerator():
                raise RuntimeError(
                    f"sync_bn='{implementation}' needs a GPU: synchronised batch norm has no CPU "
                    'kernel. Take sync_bn out of the config (--cfg-options sync_bn=None).'
                )
            return original(module, implementation)

        return convert_sync_batchnorm

    replace(module, 'convert_sync_batchnorm', make)
