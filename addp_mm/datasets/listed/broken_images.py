# Copyright (c) addp_mm contributors. Apache-2.0.
"""The record of images that could not be read, and the limit on their number."""

from __future__ import annotations

import errno
import json
import math
import os
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.readers.load_image import BrokenImageError
from addp_mm.errors import first_few

# Number of images that may be broken in addition to the share, so that one broken image does not
# stop a small dataset.
BROKEN_ALLOWANCE = 10
_NUM_NAMED = 20
# Errors of the file. Too many open files or too little memory are not faults of an image.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE),
}


class TooManyBrokenImagesError(DatasetError):
    """More images are broken than allowed; the message lists them."""


def is_gone(error: Exception) -> bool:
    """Whether a listed image no longer exists."""
    return isinstance(error, FileNotFoundError)


def num_allowed(share: float, count: int) -> int:
    """Number of ``count`` images that may be broken: their share and ten more."""
    # 0.29 * 100 is a little less than 29.
    return math.floor(share * count + 1e-6) + BROKEN_ALLOWANCE


def is_broken_image(error: Exception) -> bool:
    """Whether one image causes an error, and not the program or the machine."""
    return isinstance(error, BrokenImageError) or isinstance(error, OSError) and error.errno in _OF_THE_FILE


class BrokenImages:
    """The broken images of a dataset, counted over all its worker processes and ranks.

    All processes append to one text file. A line is the name as JSON, a tab and the reason. An
    image that is found broken several times is counted once and logged once.

    Args:
        path: The file. On a cluster all ranks must be able to read and write it.
        count: Number of all images.
        share: Share of them that may be broken, in addition to :data:`BROKEN_ALLOWANCE`.
    """

    def __init__(self, path: str | Path, count: int, share: float) -> None:
        self.path, self.count = Path(path), count
        self.allowed = num_allowed(share, count)

    def clear(self) -> None:
        """Remove the record of an earlier run; the images may have been repaired."""
        self.path.unlink(missing_ok=True)

    def read(self) -> dict[str, str]:
        """Reasons by name, in the order in which they were recorded."""
        try:
            text = self.path.read_text(encoding='utf-8')
        except FileNotFoundError:
            return {}
        found: dict[str, str] = {}
        # Another process may still be writing the last line.
        for line in text.split('\n')[:-1]:
            name, _, reason = line.partition('\t')
            found.setdefault(json.loads(name), reason)
        return found

    def add(self, name: str, error: Exception) -> None:
        """Record a broken image.

        Raises:
            TooManyBrokenImagesError: More images are broken than are allowed.
        """
        found = self.read()
        if name not in found:
            reason = ' '.join(str(error).split())
            line = f'{json.dumps(name)}\t{reason}\n'.encode('utf-8', 'replace')
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A single write to a file that is opened for appending does not break the lines of
            # other processes.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
            print_log(f'{reason} Another image is used instead.', 'current', WARNING)
            found[name] = reason
        if len(found) > self.allowed:
            share = math.ceil((len(found) - BROKEN_ALLOWANCE) / self.count * 1e4) / 1e4
            raise TooManyBrokenImagesError(
                f'{len(found)} images are broken, {self.allowed} are allowed: '
                f'{first_few((f"{key} ({value})" for key, value in found.items()), _NUM_NAMED, "; ")}. All are listed '
                f'in {self.path}. Repair them and resume. Or remove them and resume with --images-changed keep '
                "(in a config changed='keep') to use the other images of the list. Or allow more: the images found so "
                f'far need a --max-broken-share (max_broken_share) of {share:g}.'
            )
