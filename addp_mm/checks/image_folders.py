# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the images of a folder are complete."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from addp_mm.datasets.errors import DatasetError, check_folder_exists
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.errors import first_few

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')

_MAX_OPENED = 20_000
_NUM_DECODED = 16
_DECODE_ALL_FILES, _DECODE_ALL_BYTES = 2000, 512 * 2**20
_END_MARKS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9'}
_END_BYTES = 64

_Item = TypeVar('_Item')


def check_image_folder(
    folder: str | Path,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
    expected: int | None = None,
    read: Callable[[bytes], object] = read_rgb,
) -> list[str]:
    """Check that a folder has images and that they are complete.

    Up to 2,000 files of up to 512 MiB in total are all decoded. If there are more, the ends of up
    to 20,000 files, evenly spread, are read. A file is decoded if it is empty or lacks the end mark
    of its format. 16 more files are always decoded.

    Args:
        folder: The folder; all folders below it are searched too.
        extensions: Ends of image file names, compared in lower case. Defaults to common formats.
        expected: Expected number of images. Defaults to None: any number.
        read: Decodes the bytes of a file; raises a ValueError if it is damaged. Defaults to
            :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Returns:
        Paths of the images relative to ``folder``, sorted.

    Raises:
        DatasetError: The folder does not exist, has no images, has another number than expected, or
            has damaged images.
    """
    folder = Path(folder)
    check_folder_exists(folder)
    images = list_files(folder, extensions)
    if not images:
        raise DatasetError(
            f'{folder}: no images in this folder ({", ".join(extensions)}). Check the path; if writing '
            'or unpacking the data was interrupted, delete the folder and do it again.'
        )
    if expected is not None and len(images) != expected:
        raise DatasetError(
            f'{folder}: incomplete, {len(images)} of {expected} images exist. Delete the data set and write it again.'
        )
    check_image_files(folder, images, read=read)
    return images


def list_files(folder: Path, extensions: Sequence[str]) -> list[str]:
    """Files below a folder, relative to it, sorted; links to folders are followed."""
    ends = tuple(extension.lower() for extension in extensions)
    files = []
    for root, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(root, folder)
        files += [os.path.normpath(os.path.join(below, name)) for name in names if name.lower().endswith(ends)]
    return sorted(files)


def missing_files(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Find which of ``names``, paths relative to ``folder``, do not exist.

    Every folder is listed once. A separate look-up of each of ImageNet's files takes minutes on a
    network disk.
    """
    listed: dict[str, set[str]] = {}
    absent = []
    for name in names:
        below, base = os.path.split(name)
        if below not in listed:
            listed[below] = _file_names(os.path.join(folder, below))
        if base not in listed[below]:
            absent.append(name)
    if absent and os.path.isfile(os.path.join(folder, absent[0])):
        # The file system does not distinguish lower case from upper case.
        absent = [name for name in absent if not os.path.isfile(os.path.join(folder, name))]
    return absent


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            # Links are not followed: that would look up their files.
            return {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
    except OSError:
        return set()


def check_image_files(
    folder: str | Path, names: Sequence[str], kind: str = 'images', read: Callable[[bytes], object] = read_rgb
) -> None:
    """Check that image files are complete, as :func:`check_image_folder` does.

    Args:
        folder: The folder of the files.
        names: Paths relative to ``folder``.
        kind: Name of the files in the message. Defaults to 'images'.
        read: Decodes the bytes of a file; raises a ValueError if it is damaged. Defaults to
            :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Raises:
        DatasetError: Files are damaged; the message names them.
    """
    decoded = set(names if _few(folder, names) else spread(names, _NUM_DECODED))
    damaged = []
    for name in spread(names):
        path = Path(folder, name)
        if name in decoded or not _ends_well(path):
            try:
                read(path.read_bytes())
            except (OSError, ValueError) as error:
                damaged.append(f'{path} ({error})')
    if damaged:
        advice = 'Replace or remove them.' if kind == 'images' else 'Replace them.'
        raise DatasetError(f'{len(damaged)} {kind} cannot be read: {first_few(damaged, 5)}. {advice}')


def _few(folder: str | Path, names: Sequence[str]) -> bool:
    """Whether the files are few enough to decode all within a minute."""
    if len(names) > _DECODE_ALL_FILES:
        return False
    paths = [os.path.join(folder, name) for name in names]
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) <= _DECODE_ALL_BYTES


def _ends_well(path: Path) -> bool:
    mark = _END_MARKS.get(path.suffix.lower())
    try:
        with open(path, 'rb') as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END_BYTES))
            return size > 0 and (mark is None or mark in file.read())
    except OSError:
        return False


def spread(items: Sequence[_Item], count: int = _MAX_OPENED) -> Sequence[_Item]:
    """At most ``count`` items, evenly spread over all. Defaults to 20,000 items."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]
