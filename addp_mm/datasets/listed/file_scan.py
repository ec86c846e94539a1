# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the images below a folder, in an order that depends on their paths only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from logging import WARNING

from mmengine.logging import print_log
from tqdm import tqdm


def find_images(root: str | os.PathLike, extensions: Sequence[str], excluded: Sequence = ()) -> Iterator[bytes]:
    """Yield the paths of the images below a folder, relative to it, in their sorted order.

    Only the names in one folder and its parent folders are in memory. Hidden files and folders
    (``.name``), ``__MACOSX`` and the excluded folders are skipped. Links are followed. Each folder
    is searched once, so that loops of links end. Folders without read permission and links without
    a target are skipped with a warning.

    Args:
        root: The folder.
        extensions: Extensions of image files, compared in lower case.
        excluded: Folders that are not searched. Defaults to (): none.
    """
    ends = tuple(os.fsencode(extension.lower()) for extension in extensions)
    seen = {_identity(os.fsencode(path)) for path in excluded if os.path.isdir(path)}
    dangling: list[bytes] = []
    with tqdm(desc='Listing images', unit=' images', disable=None) as bar:
        for path in _walk(os.fsencode(root), b'', ends, seen, dangling):
            bar.update()
            yield path
    if dangling:
        print_log(
            f'{root}: {len(dangling)} links with names of images have no target and were skipped.', 'current', WARNING
        )


def _walk(
    root: bytes, below: bytes, ends: tuple[bytes, ...], seen: set[tuple[int, int]], dangling: list[bytes]
) -> Iterator[bytes]:
    path = os.path.join(root, below)
    try:
        folder = _identity(path)
        if folder in seen:
            return
        seen.add(folder)
        names = _names_in(path, ends, dangling)
    except PermissionError as error:
        print_log(f'{os.fsdecode(path)} cannot be read and is skipped ({error.strerror}).', 'current', WARNING)
        return
    for name in names:
        if name.endswith(b'/'):
            yield from _walk(root, os.path.join(below, name[:-1]), ends, seen, dangling)
        else:
            yield os.path.join(below, name)


def _names_in(path: bytes, ends: tuple[bytes, ...], dangling: list[bytes]) -> list[bytes]:
    """Sorted names of images and folders. Folders end in ``/``, so that paths are sorted."""
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(b'.') or entry.name == b'__MACOSX':
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link whose target cannot be read, or a link to itself
                is_folder = is_file = False
            if is_folder:
                names.append(entry.name + b'/')
            elif entry.name.lower().endswith(ends):
                (names if is_file else dangling).append(entry.name)
    return sorted(names)


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
