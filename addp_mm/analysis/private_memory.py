# Copyright (c) addp_mm contributors. Apache-2.0.
"""Memory that belongs to this process alone."""

from __future__ import annotations

from addp_mm.analysis.memory_field import memory_field

_REPORT = 'smaps_rollup'


def private_memory() -> int | None:
    """Bytes that this process alone has written, and that no file contains.

    Pages that a forked process shares with its parent do not count until one of them writes to
    them; pages of mapped files do not count. None if the system is not Linux.
    """
    return memory_field(_REPORT, 'Private_Dirty')


def unique_memory() -> int | None:
    """Bytes that are free when this process ends (USS): also pages of files that it alone maps."""
    clean, dirty = memory_field(_REPORT, 'Private_Clean'), private_memory()
    return None if clean is None or dirty is None else clean + dirty
