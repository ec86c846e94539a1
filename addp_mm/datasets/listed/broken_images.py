# Copyright (c) addp_mm contributors. Apache-2.0.
"""The record of images that could not be read, and the limit on their number."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from addp_mm.datasets.errors import BrokenSampleError, DatasetError
from addp_mm.errors import first_few

# Number of images that may be broken in addition to the share, so that one broken image does not
# stop a small dataset.
BROKEN_ALLOWANCE = 10
_NUM_NAMED = 20
# Errors of the file. Too many open files or too little memory are not faults of an image.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE, errno.ETIMEDOUT),
}

# {share} is the least share that allows what was found
_LISTED_REMEDY = (
    'Repair them and resume. Or remove them and resume with --images-changed keep (in a config '
    "changed='keep') to use the other images of the list. Or allow more: the images found so far need a "
    '--max-broken-share (max_broken_share) of {share:g}.'
)


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
    return isinstance(error, BrokenSampleError) or isinstance(error, OSError) and error.errno in _OF_THE_FILE


class BrokenImages:
    """The broken images of a dataset, counted over all its worker processes and ranks.

    All processes append to one text file. A line is the name as JSON, a tab and the reason. An
    image that is found broken several times is counted once and logged once.

    Args:
        path: The file. On a cluster all ranks must be able to read and write it.
        count: Number of all images.
        share: Share of them that may be broken, in addition to :data:`BROKEN_ALLOWANCE`.
        what: What is counted, in the plural. Defaults to 'images'.
        remedy: What to do if too many are broken. Defaults to the options of images in a list.
    """

    def __init__(
        self, path: str | Path, count: int, share: float, what: str = 'images', remedy: str = _LISTED_REMEDY
    ) -> None:
        self.path, self.count = Path(path), count
        self._what, self._remedy = what, remedy
        self.allowed = num_allowed(share, count)
        self._found: dict[str, str] = {}
        self._position = 0  # in the file, after the lines that were read
        self._last_line = b''

    def clear(self) -> None:
        """Remove the record of an earlier run; the images may have been repaired."""
        self.path.unlink(missing_ok=True)

    def read(self) -> Mapping[str, str]:
        """Reasons by name, in the order in which they were recorded.

        Only lines that were added since the last call are read: of ten million images, ten thousand
        may be broken.
        """
        lines = self._new_lines()
        if lines is None:  # the record was cleared
            self._found, self._position, self._last_line = {}, 0, b''
            lines = self._new_lines() or []
        for line in lines:
            name, _, reason = line.decode('utf-8').rstrip('\r\n').partition('\t')
            self._found.setdefault(json.loads(name), reason)
        return self._found

    def _new_lines(self) -> list[bytes] | None:
        """Lines after those that were read; None if these are no longer in the file."""
        try:
            with open(self.path, 'rb') as file:
                file.seek(self._position - len(self._last_line))
                if file.read(len(self._last_line)) != self._last_line:
                    return None
                # Another process may still be writing the last line.
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return None if self._position else []
        if lines and not lines[-1].endswith(b'\n'):
            lines.pop()
        if lines:
            self._last_line = lines[-1]
            self._position += sum(map(len, lines))
        return lines

    def add(self, name: str, error: Exception | str) -> None:
        """Record a broken image.

        Args:
            name: Its name.
            error: The reason, which names it.

        Raises:
            TooManyBrokenImagesError: More images are broken than are allowed.
        """
        if name not in self.read():
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
            end = '' if reason.endswith('.') else '.'
            print_log(f'{reason}{end} Another one of the {self._what} is used instead.', 'current', WARNING)
        found = self.read()
        if len(found) > self.allowed:
            share = math.ceil((len(found) - BROKEN_ALLOWANCE) / self.count * 1e4) / 1e4
            raise TooManyBrokenImagesError(
                f'{len(found)} {self._what} are broken, {self.allowed} are allowed: '
                f'{first_few((f"{key} ({value})" for key, value in found.items()), _NUM_NAMED, "; ")}. All are listed '
                f'in {self.path}. {self._remedy.format(share=share)}'
            )
