# Copyright (c) addp_mm contributors. Apache-2.0.
"""Configs are read without waiting for the disk."""

import os
import tempfile
from functools import cache, partial
from types import SimpleNamespace

from mmengine.config import config, utils

MEMORY = '/dev/shm'


def read_fast() -> None:
    """Let this process, and those forked from it, read configs in a tenth of the time.

    mmengine writes a temporary copy of each file several times, which takes some disks 15 ms; a
    config has about ten files. For each config of mmdet, mmpretrain or mmseg it reads all their
    index files.
    """
    utils.load = cache(utils.load)
    if os.path.isdir(MEMORY) and os.access(MEMORY, os.W_OK):
        config.tempfile = SimpleNamespace(
            **{**vars(tempfile), 'TemporaryDirectory': partial(tempfile.TemporaryDirectory, dir=MEMORY)}
        )
