# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the images of a folder are complete."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from addp_mm.checks.dataset_cfg import quoted
from addp_mm.checks.tolerance import file_time_limit, is_tolerated
from addp_mm.datasets.errors import DatasetError, check_folder_exists
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.errors import first_few

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
_MAX_CHECKED = 2000

_Item = TypeVar('_Item')


def check_image_folder(
    folder: Path, extensions: Sequence[str] = IMAGE_EXTENSIONS, read: Callable[[bytes], object] = read_rgb
) -> list[str]:
    """Check that a folder has images and that they are complete.

    Args:
        folder: The folder; all folders below it are searched too.
        extensions: Ends of image file names, compared in lower case. Defaults to common formats.
        read: As in :func:`check_image_files`. Defaults to
            :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Returns:
        Paths of the images relative to ``folder``, sorted.

    Raises:
        DatasetError: The folder does not exist, has no images, or has damaged images.
    """
    check_folder_exists(folder)
    images = _list_files(folder, extensions)
    if not images:
        raise DatasetError(
            f'{folder}: no images in this folder ({", ".join(extensions)}). Check the path; if writing '
            'or unpacking the data was interrupted, delete the folder and do it again.'
        )
    check_image_files(folder, images, read)
    return images


def check_listed_images(
    source: Path, folder: Path, names: Sequence[str], read: Callable[[bytes], object] = read_rgb
) -> None:
    """Check that the images that a file lists exist and are complete.

    Args:
        source: The file that lists them, for messages.
        folder: The folder of the images.
        names: Paths relative to ``folder``.
        read: As in :func:`check_image_files`. Defaults to
            :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Raises:
        DatasetError: The list is empty, or the folder or images are missing or damaged.
    """
    if not names:
        raise DatasetError(f'{source}: the list of images is empty. Write it again, or set ann_file to another file.')
    check_folder_exists(folder)
    missing = missing_files(folder, names)
    if missing:
        words = (
            f'{source}: {len(missing)} of its {len(names)} images are not in {folder}: {quoted(missing)}. '
            'Complete the folder, or correct data_prefix, or img_suffix if there is one.'
        )
        if not is_tolerated(words, len(missing), len(names)):
            raise DatasetError(words)
        absent = set(missing)
        names = [name for name in names if name not in absent]
    check_image_files(folder, names, read)


def _list_files(folder: Path, extensions: Sequence[str]) -> list[str]:
    """Files below a folder, relative to it, sorted; links to folders are followed."""
    ends = tuple(extension.lower() for extension in extensions)
    files = []
    for root, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(root, folder)
        files += [os.path.normpath(os.path.join(below, name)) for name in names if name.lower().endswith(ends)]
    return sorted(files)


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Find which of ``names``, paths relative to ``folder``, do not exist.

    Every folder is listed once. A separate look-up of each of ImageNet's files takes minutes on a
    network disk.
    """
    listed: dict[str, set[str]] = {}
    absent = []
    for name in names:
        below, base = os.path.split(name)
        if below not in listed:
            path = folder / below
            listed[below] = set(os.listdir(path)) if path.is_dir() else set()
        if base not in listed[below]:
            absent.append(name)
    return absent


def check_image_files(folder: Path, names: Sequence[str], read: Callable[[bytes], object] = read_rgb) -> None:
    """Check that image files can be decoded: all of up to 2,000, else 2,000 that are evenly spread.

    Args:
        folder: The folder of the files.
        names: Paths relative to ``folder``.
        read: Decodes the bytes of a file; raises a ValueError if it is damaged. Defaults to
            :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Raises:
        DatasetError: Files are damaged; the message names them.
    """
    damaged = []
    for name in spread(names):
        try:
            with file_time_limit():
                content = (folder / name).read_bytes()
            read(content)
        except (OSError, ValueError) as error:
            damaged.append(f'{folder / name} ({error})')
    words = f'{len(damaged)} images cannot be read: {first_few(damaged, 5)}. Replace or remove them.'
    if damaged and not is_tolerated(words, len(damaged), len(names)):
        raise DatasetError(words)


def spread(items: Sequence[_Item]) -> Sequence[_Item]:
    """At most 2,000 items, evenly spread over all."""
    count = min(len(items), _MAX_CHECKED)
    return [items[i * len(items) // count] for i in range(count)]
