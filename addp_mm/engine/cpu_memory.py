# Copyright (c) addp_mm contributors. Apache-2.0.
"""Keep the CPU memory that a step frees, because the next step needs it again.

By default the C library (glibc) gets each large tensor from the system and gives it back when it is
freed. The system then clears every page again: about a third of the time of a convolution on large
maps. PyTorch keeps the memory of a GPU in the same way.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# options of glibc's mallopt, and its default values after large blocks were freed
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
_OWN_SETTINGS = ('GLIBC_TUNABLES', 'MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_')


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors instead of giving it back.

    The process then holds its peak until it ends. Settings of glibc in the environment
    (``GLIBC_TUNABLES``, ``MALLOC_…_``) are left alone.

    Returns:
        Whether it was done; not without glibc.
    """
    return not any(name in os.environ for name in _OWN_SETTINGS) and _set(_KEEP)


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Give freed memory back inside, as without :func:`keep_freed_memory`, to compare with it.

    Afterwards it is kept.
    """
    _set(_USUAL)
    try:
        yield
    finally:
        keep_freed_memory()


def _set(options: dict[int, int]) -> bool:
    library = ctypes.CDLL(None) if sys.platform == 'linux' else None
    if not hasattr(library, 'mallopt') or not hasattr(library, 'gnu_get_libc_version'):
        return False
    return all(library.mallopt(option, value) for option, value in options.items())  # type: ignore[union-attr]
