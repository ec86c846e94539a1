# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the images below a folder, in an order that depends on their names alone."""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from logging import WARNING

from mmengine.logging import print_log
from tqdm import tqdm

_RUN = 400_000
_READ = 1 << 13


class FileScan:
    """A streamed search for images below a folder.

    Iterate over it for the paths relative to the folder, as bytes, sorted. More than some hundred
    thousand paths are sorted through temporary files, so that memory does not grow with the number
    of images. Hidden files and folders (``.name``) and ``__MACOSX`` are left out, and so is what
    ``excluded`` names. Links are followed; each folder is visited once, whatever links lead to it, so that loops end. A folder that may not be read is left out
    with a warning.

    Args:
        root: The folder.
        extensions: Ends of image file names, compared in lower case.
        excluded: Folders that are not searched.
        run_length: How many paths are sorted in memory.

    Attributes:
        folders: After the iteration, relative path and time of change in nanoseconds of each folder
            visited.
        dangling: Number of links with an image's name that lead nowhere, or where one may not look;
            they are left out.
    """

    def __init__(
        self, root: str | os.PathLike, extensions: Sequence[str], excluded: Sequence = (), run_length: int = _RUN
    ) -> None:
        self.root = os.fsencode(root)
        self.ends = tuple(os.fsencode(extension.lower()) for extension in extensions)
        self.excluded = {_identity(path) for path in map(os.fsencode, excluded) if os.path.isdir(path)}
        self.run_length = run_length
        self.folders: list[tuple[str, int]] = []
        self.dangling = 0

    def __iter__(self) -> Iterator[tuple[bytes]]:
        self.folders, self.dangling = [], 0
        with ExitStack() as stack, tqdm(desc='Listing images', unit=' images', disable=None) as bar:
            run: list[bytes] = []
            spilled = []
            for path in self._walk():
                run.append(path)
                if len(run) >= self.run_length:
                    spilled.append(stack.enter_context(_spilled(run)))
                    run = []
                    bar.update(self.run_length)
            bar.update(len(run))
            run.sort()
            for path in heapq.merge(run, *map(_read_back, spilled)):
                yield (path,)

    def _walk(self) -> Iterator[bytes]:
        """All images, folder by folder. Real folders come before those behind links, which are the same ones often."""
        seen = set(self.excluded)
        links = [b'']
        while links:
            waiting = [links.pop(0)]
            while waiting:
                below = waiting.pop()
                path = os.path.join(self.root, below) if below else self.root
                try:
                    # before the files are listed: what is added meanwhile makes the folder newer
                    # than this
                    status = os.stat(path)
                except OSError:
                    continue
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                self.folders.append((os.fsdecode(below), status.st_mtime_ns))
                real, linked = yield from self._list(path, below)
                waiting += sorted(real, reverse=True)
                links += sorted(linked)

    def _list(self, path: bytes, below: bytes) -> Iterator[bytes]:
        real, linked = [], []
        try:
            found = os.scandir(path)
        except PermissionError as error:
            print_log(f'{os.fsdecode(path)} may not be read and is left out ({error.strerror}).', 'current', WARNING)
            return real, linked
        with found as entries:
            for entry in entries:
                if entry.name.startswith(b'.') or entry.name == b'__MACOSX':
                    continue
                relative = os.path.join(below, entry.name) if below else entry.name
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except PermissionError:  # behind a link
                    is_folder = is_file = False
                if is_folder:
                    (linked if entry.is_symlink() else real).append(relative)
                elif entry.name.lower().endswith(self.ends):
                    if is_file:
                        yield relative
                    elif entry.is_symlink():
                        self.dangling += 1
        return real, linked


def changed_folder(root: str | os.PathLike, folders: Sequence) -> str | None:
    """The first folder that is not as a :class:`FileScan` saw it; None where all are.

    A file that is added, removed or renamed changes the time of its folder; one whose content
    changes does not.
    """
    for below, changed in folders:
        path = os.path.join(root, below)
        try:
            if os.stat(path).st_mtime_ns != changed:
                return path
        except OSError:
            return path
    return None


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _spilled(run: list[bytes]):
    """A temporary file with the sorted paths of a run; a zero byte, which no path holds, closes each."""
    run.sort()
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    file.write(b'\0'.join(run) + b'\0')
    file.seek(0)
    return file


def _read_back(file) -> Iterator[bytes]:
    rest = b''
    while block := file.read(_READ):
        *paths, rest = (rest + block).split(b'\0')
        yield from paths
