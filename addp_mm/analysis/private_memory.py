# Copyright (c) addp_mm contributors. Apache-2.0.
"""Memory that belongs to this process alone."""

from __future__ import annotations

from pathlib import Path

_ROLLUP = Path('/proc/self/smaps_rollup')


def private_memory() -> int | None:
    """Bytes that this process alone has written, and that no file contains.

    Pages that a forked process shares with its parent do not count until one of them writes to
    them; pages of mapped files do not count. None if the system is not Linux.
    """
    return _kibibytes('Private_Dirty:')


def unique_memory() -> int | None:
    """Bytes that are free when this process ends (USS): also pages of files that it alone maps."""
    clean, dirty = _kibibytes('Private_Clean:'), private_memory()
    return None if clean is None or dirty is None else clean + dirty


def _kibibytes(field: str) -> int | None:
    if not _ROLLUP.is_file():
        return None
    return 1024 * int(_ROLLUP.read_text().partition(field)[2].split()[0])
