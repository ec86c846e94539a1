# Copyright (c) addp_mm contributors. Apache-2.0.
"""Peak memory of this process and of one call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from addp_mm.analysis.memory_field import memory_field
from addp_mm.devices import is_accelerator, memory_statistics, synchronize
from addp_mm.engine.cpu_memory import give_back_freed_memory

_CLEAR = Path('/proc/self/clear_refs')
_RESET_PEAK = '5'  # what the kernel reads as "the peak starts again at the memory of now"


def resident_peak() -> int | None:
    """Largest resident memory of this process in bytes; None if the system is not Linux.

    It includes the interpreter and all libraries. It is counted from the last
    :func:`reset_resident_peak`.
    """
    # Not getrusage: its peak includes that of the process that started this one.
    return memory_field('status', 'VmHWM')


def reset_resident_peak() -> bool:
    """Start :func:`resident_peak` again at the memory of now; False if the system cannot."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def added_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Memory in bytes that a call needs at its peak, above what was in use before it.

    On the CPU it is resident memory, so it is a few MiB too large or too small. None if the system
    cannot reset its peak, or torch does not count the memory of the device.

    Args:
        run: The call.
        device: Device on which it computes.
    """
    gc.collect()
    if is_accelerator(device):
        memory = memory_statistics(device)
        if memory is None:
            return None
        synchronize(device)
        memory.reset_peak_memory_stats(device)
        before = memory.memory_allocated(device)
        run()
        synchronize(device)
        return memory.max_memory_allocated(device) - before
    give_back_freed_memory()
    can_reset = reset_resident_peak()
    resident = memory_field('status', 'VmRSS')
    run()
    peak = resident_peak()
    return max(0, peak - resident) if can_reset and peak is not None and resident is not None else None
