# Copyright (c) addp_mm contributors. Apache-2.0.
"""List the files in a tar archive, also one that is cut short."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from logging import WARNING

from mmengine.logging import print_log

from addp_mm.datasets.errors import DatasetError

_BLOCK = 512


def tar_members(path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of an uncompressed tar archive.

    The last one may be cut short: its data end beyond the end of the archive. A warning says how
    much of the archive cannot be read.

    Args:
        path: The archive.

    Raises:
        DatasetError: It is not an uncompressed tar archive.
    """
    count = position = 0
    try:
        with tarfile.open(path, 'r:') as archive:
            while True:
                try:
                    member = archive.next()
                except (tarfile.ReadError, OSError, ValueError):
                    if not position:
                        raise
                    break  # the data of the last member are cut, or its header claims a size beyond any file
                if member is None:
                    break
                # tarfile would keep all members in memory
                archive.members.clear()  # type: ignore[attr-defined]
                count, position = count + 1, archive.offset
                if member.isreg() and not member.issparse():
                    yield member
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DatasetError(
            f'{path} cannot be read as an uncompressed tar file ({error}). Decompress or replace it.'
        ) from error
    if position:
        _warn_about_rest(path, count, position)


def _warn_about_rest(path: str, count: int, position: int) -> None:
    """Warn if no end mark follows the last member.

    Args:
        path: The archive.
        count: Number of its members.
        position: Position after the last one, if it is whole.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        file.seek(min(position, size))
        block = file.read(_BLOCK)
    if len(block) == _BLOCK and not any(block):
        return
    if position > size:
        words = f'its last member ends at byte {position:,}, but the file has {size:,} bytes'
    elif block and len(block) == _BLOCK:
        rest = size - position
        words = f'after {count:,} members, {rest:,} of {size:,} bytes ({rest / size:.1%}) are no members'
    else:
        words = f'it ends after {count:,} members and {size:,} bytes without the mark of its end'
    print_log(
        f'{path} is damaged or cut short: {words}. The members before are used; write or copy the file again to have '
        'all of them.',
        'current',
        WARNING,
    )
