# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether the file of an LMDB database has all of its pages."""

from __future__ import annotations

import os
from typing import Any

from addp_mm.datasets.errors import DatasetError


def check_is_whole(path: str, environment: Any) -> None:
    """Check the size of a database. LMDB maps its file: reading a page that is missing is SIGBUS.

    Args:
        path: The database, a folder or a file.
        environment: It, opened by the package lmdb.

    Raises:
        DatasetError: The file is shorter than its pages.
    """
    file = os.path.join(path, 'data.mdb') if os.path.isdir(path) else path
    found, needed = os.path.getsize(file), (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if found < needed:
        raise DatasetError(
            f'{file} is cut short: it has {found:,} of {needed:,} bytes ({1 - found / needed:.1%} are missing). Copy '
            'it or write it again.'
        )
