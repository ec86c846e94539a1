# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the images below a folder, in an order that depends on their paths alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from logging import WARNING

from mmengine.logging import print_log
from tqdm import tqdm


class FileScan:
    """A search for images below a folder.

    Iterate over it for the paths relative to the folder, as bytes, in their sorted order. Memory
    holds the names of one folder and of those that lead to it.

    Hidden files and folders (``.name``), ``__MACOSX`` and the excluded folders are left out. Links
    to files are followed. A link to a folder is followed unless the search finds this folder by
    itself, or has visited it before: loops end. A folder without read permission is left out with
    a warning.

    Args:
        root: The folder.
        extensions: Ends of image file names, compared in lower case.
        excluded: Folders that are not searched. Defaults to none.

    Attributes:
        folders: After the iteration, the relative path and the time of change, in nanoseconds, of
            each visited folder.
        dangling: After the iteration, the number of links that have an image's name and a missing
            or unreadable target. They are left out.
    """

    def __init__(self, root: str | os.PathLike, extensions: Sequence[str], excluded: Sequence = ()) -> None:
        self.root = os.fsencode(root)
        self.ends = tuple(os.fsencode(extension.lower()) for extension in extensions)
        self.excluded = {_identity(os.fsencode(path)) for path in excluded if os.path.isdir(path)}
        self.folders: list[tuple[str, int]] = []
        self.dangling = 0
        self._seen: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[tuple[bytes]]:
        self.folders, self.dangling, self._seen = [], 0, set(self.excluded)
        with tqdm(desc='Listing images', unit=' images', disable=None) as bar:
            for path in self._walk(b''):
                bar.update()
                yield (path,)

    def _walk(self, below: bytes) -> Iterator[bytes]:
        """Paths of the images in one folder and below it; ``below`` is relative to the root."""
        path = os.path.join(self.root, below) if below else self.root
        try:
            # Before the files are listed: one that is added meanwhile makes the folder newer.
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in self._seen:
                return
            names = self._names_in(path)
        except PermissionError as error:
            print_log(f'{os.fsdecode(path)} may not be read and is left out ({error.strerror}).', 'current', WARNING)
            names = []
        except FileNotFoundError:
            return
        self._seen.add((status.st_dev, status.st_ino))
        self.folders.append((os.fsdecode(below), status.st_mtime_ns))
        for name in names:
            if name.endswith(b'/'):
                yield from self._walk(os.path.join(below, name[:-1]))
            else:
                yield os.path.join(below, name)

    def _names_in(self, path: bytes) -> list[bytes]:
        """Sorted names of images and folders. A folder's ends in ``/``: paths are sorted, too."""
        names = []
        with os.scandir(path) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError:  # a link whose target may not be read, or a link to itself
                    is_folder = is_file = False
                if is_folder:
                    if not (entry.is_symlink() and self._is_found_by_itself(entry.path)):
                        names.append(entry.name + b'/')
                elif entry.name.lower().endswith(self.ends):
                    if is_file:
                        names.append(entry.name)
                    elif entry.is_symlink():
                        self.dangling += 1
        return sorted(names)

    def _is_found_by_itself(self, link: bytes) -> bool:
        """Whether the target of a link to a folder is below the root and not hidden."""
        target = os.path.relpath(os.path.realpath(link), os.path.realpath(self.root))
        return target == b'.' or not any(_is_hidden(part) for part in target.split(b'/'))


def _is_hidden(name: bytes) -> bool:
    return name.startswith(b'.') or name == b'__MACOSX'


def changed_folder(root: str | os.PathLike, folders: Sequence) -> str | None:
    """The first folder that is not as a :class:`FileScan` found it; None if all are.

    A file that is added, removed or renamed changes the time of its folder; one whose content
    changes does not.

    Args:
        root: The folder that was searched.
        folders: The scan's ``folders``.
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
