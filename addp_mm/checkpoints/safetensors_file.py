# Copyright (c) addp_mm contributors. Apache-2.0.
"""A file of tensors that is there in full or as it was before, and that others may read as any other file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors.

    Args:
        path: File to write, in a folder that exists.
        tensors: Contiguous, no two sharing memory.
        metadata: Facts to store in the file.
    """
    partial = f'{path}.partial'
    save_file(dict(tensors), partial, metadata=metadata and dict(metadata))
    umask = os.umask(0)
    os.umask(umask)
    # safetensors makes files that only their owner reads
    os.chmod(partial, 0o666 & ~umask)
    os.replace(partial, path)
