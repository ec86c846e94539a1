# Copyright (c) addp_mm contributors. Apache-2.0.
"""Memory of this process, as Linux reports it in /proc."""

from __future__ import annotations

from pathlib import Path


def memory_field(report: str, field: str) -> int | None:
    """A size in bytes; None if the system is not Linux.

    Args:
        report: File in ``/proc/self``, such as 'status'.
        field: Name of the size, such as 'VmHWM'.
    """
    path = Path('/proc/self') / report
    return 1024 * int(path.read_text().partition(f'{field}:')[2].split()[0]) if path.is_file() else None
