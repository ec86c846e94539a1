# Copyright (c) addp_mm contributors. Apache-2.0.
"""Remove a folder so that a part of it is never taken for the whole."""

from __future__ import annotations

import shutil
from pathlib import Path

_REMOVED = '.removed-'


def remove_folder(path: Path) -> None:
    """Rename a folder, then remove it. It may be missing.

    Also removes what an interrupted removal has left.
    """
    left = path.with_name(f'{_REMOVED}{path.name}')
    if left.exists():
        shutil.rmtree(left)
    if path.exists():
        path.rename(left)
        shutil.rmtree(left)
