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

_is_kept = False


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors instead of giving it back.

    The process then holds its peak until it ends. Settings of glibc in the environment
    (``GLIBC_TUNABLES``, ``MALLOC_…_``) are left alone.

    Returns:
        Whether it was done; not without glibc.
    """
    global _is_kept
    _is_kept = not any(name in os.environ for name in _OWN_SETTINGS) and _set(_KEEP)
    return _is_kept


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Give freed memory back inside, as without :func:`keep_freed_memory`, to compare with it.

    Nothing changes in a process that does not keep it.
    """
    if _is_kept:
        _set(_USUAL)
        give_back_freed_memory()
    try:
        yield
    finally:
        if _is_kept:
            _set(_KEEP)


def give_back_freed_memory() -> None:
    """Let the C library return the memory that is free now."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _set(options: dict[int, int]) -> bool:
    library = _glibc()
    return library is not None and all(library.mallopt(option, value) for option, value in options.items())


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == 'linux' else None
    return library if hasattr(library, 'gnu_get_libc_version') else None
