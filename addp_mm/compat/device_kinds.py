# Copyright (c) addp_mm contributors. Apache-2.0.
"""The device of mmengine: GPUs of Intel, and which accelerators mmengine can train on by itself."""

from typing import Any

# mmengine has code for launchers and mixed precision on these
_KNOWN = ('cuda', 'npu', 'mlu', 'musa', 'dipu')


def patch_get_device(module: Any) -> bool:
    """Make ``get_device`` name the accelerator that torch has, where mmengine knows none.

    Without this patch, a training on a GPU of Intel runs on the CPU.

    Args:
        module: ``mmengine.device.utils``.

    Returns:
        Whether torch has such an accelerator.
    """
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if module.DEVICE != 'cpu' or found is None:
        return False
    module.DEVICE = found.type
    return True


def device_kind() -> str:
    """Kind of the device on which mmengine trains: 'cpu', 'cuda', 'xpu', 'mps', …."""
    from mmengine.device import get_device

    return get_device()


def is_known(kind: str) -> bool:
    """Whether mmengine itself starts processes and mixed precision on this kind of accelerator."""
    return kind in _KNOWN
