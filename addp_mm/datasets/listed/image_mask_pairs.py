# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images with their masks, from two files or two folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addp_mm.config.paths import require_file
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.file_scan import find_images
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.readers.read_image import upright_size
from addp_mm.errors import first_few


@dataclass(frozen=True)
class ImageMaskPair:
    """An image file, and the file of its mask if it has one.

    Args:
        name: Path of the image below its folder.
        image: The image file.
        mask: The file of its mask. None: it has none.
    """

    name: Path
    image: Path
    mask: Path | None


def find_pairs(images: str, masks: str | None, excluded: Sequence[Path] = ()) -> list[ImageMaskPair]:
    """Find the mask of each image.

    Args:
        images: An image file, or a folder; all folders below it are searched too.
        masks: A mask for all images, or a folder with masks of the same names, which may have other
            extensions. None: no masks.
        excluded: Folders without images, such as that of the results. Defaults to (): none.

    Returns:
        At least one pair, in the order of the names.

    Raises:
        ConfigError: A file does not exist.
        DatasetError: The folder has no image; an image has no mask, or several; or the sizes of
            an image and its mask differ.
    """
    if Path(images).is_dir():
        root = Path(images)
        excluded = [*excluded, *([Path(masks)] if masks and Path(masks).absolute() != root.absolute() else [])]
        names = [Path(os.fsdecode(name)) for name in find_images(root, EXTENSIONS, excluded)]
    else:
        require_file(images, 'the image', EXTENSIONS)
        root, names = Path(images).parent, [Path(Path(images).name)]
    if not names:
        raise DatasetError(f'{images}: no images found')
    if masks is None:
        found: list[Path | None] = [None] * len(names)
    elif Path(masks).is_dir():
        found = list(_masks_of(names, Path(masks)))
    else:
        require_file(masks, '--mask', EXTENSIONS)
        found = [Path(masks)] * len(names)
    pairs = [ImageMaskPair(name, root / name, mask) for name, mask in zip(names, found, strict=True)]
    wrong = [words for pair in pairs if (words := _other_size(pair))]
    if wrong:
        raise DatasetError(f'a mask must have the size of its image: {first_few(wrong, 3, "; ")}')
    return pairs


def _masks_of(names: Sequence[Path], folder: Path) -> list[Path]:
    by_stem: dict[Path, list[Path]] = {}
    for found in find_images(folder, EXTENSIONS):
        path = Path(os.fsdecode(found))
        by_stem.setdefault(path.with_suffix(''), []).append(path)
    masks, missing, several = [], [], []
    for name in names:
        candidates = by_stem.get(name.with_suffix(''), [])
        chosen = [name] if name in candidates else candidates
        masks += [folder / path for path in chosen[:1]]
        missing += [name] * (not chosen)
        several += [name] * (len(chosen) > 1)
    if missing:
        raise DatasetError(
            f'{folder} has no mask of the same name for {first_few(missing)}: add them, or leave these images out'
        )
    if several:
        raise DatasetError(f'{folder} has several masks for {first_few(several)}: keep one of each')
    return masks


def _other_size(pair: ImageMaskPair) -> str | None:
    """Words on the sizes of image and mask if they are known to differ."""
    sizes = [upright_size(path) for path in (pair.image, pair.mask) if path]
    if None in sizes or len(set(sizes)) == 1:
        return None
    (height, width), (mask_height, mask_width) = (size for size in sizes if size)
    return f'{pair.image} has {width}x{height} pixels, and {pair.mask} {mask_width}x{mask_height}'
