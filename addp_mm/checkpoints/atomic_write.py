# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write files atomically: a file is complete, or it does not exist."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addp_mm.errors import SAME_COMMAND, UserError, cannot_write

if TYPE_CHECKING:  # tools import this file before they need torch
    from PIL.Image import Image
    from torch import Tensor


class FileWriteError(UserError, OSError):
    """A file cannot be written, for example because the disk is full."""


@contextmanager
def naming_file(path: str | os.PathLike, *others: str | os.PathLike, remedy: str = SAME_COMMAND) -> Iterator[None]:
    """Name a file in errors of the system while it is written; those of a full disk name none.

    Args:
        path: The file.
        *others: Names that the file has while it is written. An error that names another file stays
            as it is.
        remedy: What to do after the cause is repaired. Defaults to the same command.

    Raises:
        FileWriteError: Replaces OSError.
    """
    try:
        yield
    except OSError as error:
        names = [os.fspath(name) for name in (path, *others)]
        if isinstance(error, UserError) or error.filename not in (None, *names):
            raise
        raise FileWriteError(cannot_write(os.fspath(path), error, remedy)) from error


def remove_partials(folder: str | os.PathLike, name: str = '*') -> None:
    """Remove the temporary files that a killed process left in a folder.

    Args:
        folder: The folder, into which no other process may write. It may be missing.
        name: Pattern of the names of the files to write. Defaults to all.
    """
    for partial in Path(folder).glob(f'.{name}.*.partial'):
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: str | os.PathLike, remedy: str = SAME_COMMAND) -> Iterator[Path]:
    """Write a file under a temporary name, and rename it when the block ends without an error.

    The temporary file is in the folder of ``path``, so the rename is atomic. It is synced to disk
    before the rename, and the folder after it. Several processes may write the same file: the last
    one to finish wins. If the block raises an error, the temporary file is removed and an existing
    file is not changed. If the process is killed, the temporary file stays; see
    :func:`remove_partials`.

    Args:
        path: The file to write. Its folder is created if it is missing.
        remedy: As in :func:`naming_file`. Defaults to the same command.

    Yields:
        The path to write to.

    Raises:
        FileWriteError: The file cannot be written.

    Example:
        >>> with atomic_path(folder / 'metrics.json') as partial:            # doctest: +SKIP
        ...     partial.write_text('{}')
    """
    path = Path(path)
    partial = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.partial')
    with naming_file(path, partial, path.parent, remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.touch(exist_ok=False)
            mode = partial.stat().st_mode
            yield partial
            # Some writers, such as safetensors, create files that only their owner can read.
            partial.chmod(mode)
            with open(partial, 'rb+') as file:
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the names of a folder survive a power failure, where the file system can do it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str, remedy: str = SAME_COMMAND) -> None:
    """Write a UTF-8 text file atomically. Bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path, remedy) as partial:
        partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + '\n')


def write_png(path: str | os.PathLike, image: Image) -> None:
    """Write an image of Pillow as PNG, atomically."""
    with atomic_path(path) as partial:
        image.save(partial, 'png')


def write_safetensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as a safetensors file, atomically.

    Args:
        path: The file to write.
        tensors: Contiguous tensors by name. No two may share memory.
        metadata: Text to store in the file. Defaults to None. A checksum of the content is added;
            :func:`~addp_mm.checkpoints.reading.load_checkpoint_file` verifies and removes it.
    """
    from safetensors.torch import save_file

    from addp_mm.checkpoints.checksum import CHECKSUM, checksum

    metadata = dict(metadata or {})
    with atomic_path(path) as partial:
        save_file(dict(tensors), partial, metadata={**metadata, CHECKSUM: checksum(tensors, metadata)})
        _sort_metadata(partial)


def _sort_metadata(path: str | os.PathLike) -> None:
    """Sort the metadata of a safetensors file; the library gives them another order each time."""
    with open(path, 'r+b') as file:
        size = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(size))
        header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
        text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))
