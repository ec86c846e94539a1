# Copyright (c) addp_mm contributors. Apache-2.0.
"""The fingerprint of a file."""

from __future__ import annotations

import hashlib
import os

_BLOCK = 1 << 20  # bytes: a checkpoint may be larger than the memory


def file_fingerprint(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
