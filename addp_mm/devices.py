# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a device can do, asked of torch and not of its name: CUDA and ROCm, XPU, MPS, CPU.

torch calls a GPU an accelerator; a build of torch has at most one kind. ROCm has the name 'cuda'.
What a kind lacks, such as memory statistics on MPS, its functions here leave out.
"""

# At the top level of the package: addp_mm.randomness and addp_mm.analysis use it.
from __future__ import annotations

from types import ModuleType

import torch


def default_device() -> torch.device:
    """The accelerator if torch can use one here, else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device('cpu') if found is None else found


def is_accelerator(device: torch.device) -> bool:
    """Whether a device computes beside the CPU, which goes on before it has finished."""
    return device.type not in ('cpu', 'meta')


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished everything that it was given."""
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


def empty_cache(device: torch.device) -> None:
    """Give the memory back that torch keeps on a device; on the CPU it keeps none."""
    if is_accelerator(device):
        getattr(torch.get_device_module(device), 'empty_cache', lambda: None)()


def memory_statistics(device: torch.device) -> ModuleType | None:
    """The module with ``max_memory_allocated`` and its relatives for a device.

    None if torch does not count the memory of this kind of device, as on the CPU and on MPS.
    """
    module = torch.get_device_module(device) if is_accelerator(device) else None
    return module if hasattr(module, 'max_memory_allocated') else None


def supports_bfloat16(device: torch.device) -> bool:
    """Whether torch says that an accelerator computes in bfloat16; False on the CPU."""
    if not is_accelerator(device):
        return False
    return bool(getattr(torch.get_device_module(device), 'is_bf16_supported', lambda: False)())


def accelerator_name() -> str | None:
    """The name of the first accelerator, such as 'NVIDIA H200' or 'mps'; None without one."""
    device = default_device()
    if not is_accelerator(device):
        return None
    return getattr(torch.get_device_module(device), 'get_device_name', lambda: device.type)()


def seed_accelerators(seed: int) -> None:
    """Seed the generators of all accelerators, if there are any; those of the CPU stay."""
    if torch.accelerator.is_available():
        module = torch.get_device_module()
        getattr(module, 'manual_seed_all', module.manual_seed)(seed)
