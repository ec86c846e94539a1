# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check a folder of images before training time is lost on it."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.errors import UserError, first_few

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')

_MAX_OPENED = 20_000
_NUM_DECODED = 16
_DECODE_ALL_FILES, _DECODE_ALL_BYTES = 2000, 512 * 2**20
_END_MARKS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9'}
_END_BYTES = 64


class DatasetError(UserError, ValueError):
    """Data that cannot be trained or tested on; the message names the file or folder and what to do."""


def check_image_folder(
    folder: str | Path,
    extensions: Sequence[str] = IMAGE_EXTENSIONS,
    expected: int | None = None,
    read: Callable[[bytes], object] = read_rgb,
) -> list[str]:
    """Check that a folder holds whole images.

    Up to 2,000 files of together up to 512 MiB are all decoded. Of more, the ends of up to 20,000
    files, evenly spread, are read: a file that is empty or lacks its format's end mark is decoded,
    and so are 16 files whatever their end.

    Args:
        folder: Searched with all folders below it.
        extensions: Ends of image file names, compared in lower case.
        expected: How many images should be there, where something tells.
        read: Decodes the bytes of a file; raises a ValueError where it is damaged.

    Returns:
        Paths of the images relative to ``folder``, sorted.

    Raises:
        DatasetError: No such folder, no images in it, fewer or more than expected, or damaged ones.
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
            f'{folder}: half-written, {len(images)} of {expected} images are there. Delete the data set '
            'and write it again.'
        )
    check_image_files(folder, images, read=read)
    return images


def check_folder_exists(folder: Path) -> None:
    """Raise a DatasetError that says which part of the path is wrong, and how FashionScenes is written."""
    if folder.is_dir():
        return
    if folder.exists():
        raise DatasetError(f'{folder} is a file, not a folder. Check the path given, or those in the config.')
    parent = next(parent for parent in Path(os.path.abspath(folder)).parents if parent.is_dir())
    text = (
        f'{folder}: no such folder ({parent} exists). Check the path given, or data_root and data_prefix in the config'
    )
    if 'fashion_scenes' in folder.as_posix():
        text += ', or write the data: python tools/dataset_converters/fashion_scenes.py data/fashion_scenes'
    raise DatasetError(f'{text}.')


def list_files(folder: Path, extensions: Sequence[str]) -> list[str]:
    """Files below a folder, relative to it, sorted; links to folders are followed."""
    ends = tuple(extension.lower() for extension in extensions)
    files = []
    for root, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(root, folder)
        files += [os.path.normpath(os.path.join(below, name)) for name in names if name.lower().endswith(ends)]
    return sorted(files)


def missing_files(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Which of ``names``, paths relative to ``folder``, are not there.

    Every folder is listed once: looking for each of ImageNet's files by itself takes minutes on a
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
        # a file system that does not tell small letters from capitals
        absent = [name for name in absent if not os.path.isfile(os.path.join(folder, name))]
    return absent


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            # a link counts without being followed, which would look for its file
            return {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
    except OSError:
        return set()


def check_image_files(
    folder: str | Path, names: Sequence[str], kind: str = 'images', read: Callable[[bytes], object] = read_rgb
) -> None:
    """Check that image files are whole, as :func:`check_image_folder` does.

    Args:
        folder: Where they are.
        names: Paths relative to ``folder``.
        kind: What the message calls them.
        read: Decodes the bytes of a file; raises a ValueError where it is damaged.

    Raises:
        DatasetError: Names damaged files.
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
    """Whether files are so few and small that decoding all of them takes no more than a minute."""
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


def spread(items: Sequence, count: int = _MAX_OPENED) -> Sequence:
    """At most ``count`` items, evenly spread over all."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]
