# Copyright (c) addp_mm contributors. Apache-2.0.
"""All images below a folder as a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from addp_mm.datasets.errors import check_folder_exists
from addp_mm.datasets.listed.file_scan import find_images
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.packed_names import PackedNames
from addp_mm.registry import DATASETS

# Formats that Pillow, OpenCV or tifffile decodes, and arrays of numpy.
EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.tif', '.tiff', '.webp', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.pam', '.jp2', '.j2k', '.jpx', '.jpf', '.jpc', '.j2c', '.avif'),
    *('.tga', '.sgi', '.pcx', '.dds', '.ras', '.sr', '.npy'),
)


@DATASETS.register_module()
class ImageFiles(ListedImages):
    """All images below a folder, without labels; suitable for tens of millions of images.

    The files are listed in the order of their paths. The list is on disk and shared by all workers
    and ranks. Each start compares it with the files in the folder. For hidden files and links see
    :func:`~addp_mm.datasets.listed.file_scan.find_images`.

    Args:
        root: The folder.
        pipeline: Transforms. Defaults to (): none.
        index_file: The file of the list. Defaults to None: see :class:`ListedImages`.
        extensions: Extensions of image files, compared in lower case. Defaults to all formats that
            can be read.
        **options: See :class:`ListedImages`.

    Example:
        >>> images = ImageFiles('scans', [dict(type='addp_mm.LoadImage')])  # doctest: +SKIP
        >>> images[0]['img'].shape  # doctest: +SKIP
        (512, 512, 3)
    """

    def __init__(
        self,
        root: str | Path,
        pipeline: Sequence = (),
        index_file: str | Path | None = None,
        extensions: Sequence[str] = EXTENSIONS,
        **options,
    ) -> None:
        check_folder_exists(Path(root))
        self.extensions = sorted(extension.lower() for extension in extensions)
        super().__init__(root, pipeline, index_file, **options)
        self._root = os.fsencode(self.source)

    def _read(self, row: int) -> dict:
        return dict(img_path=self._path(row))

    def _path(self, row: int) -> str:
        return os.fsdecode(os.path.join(self._root, self.names[row]))

    def _names(self) -> Iterator[bytes]:
        # A work dir may be inside the folder. The files of a training there are not listed.
        folder, root = self.index_file.parent.resolve(), self.source.resolve()
        return find_images(self.source, self.extensions, [folder] if root in folder.parents else [])

    def _about(self) -> dict:
        return dict(folder=str(self.source.absolute()), extensions=self.extensions)

    def _difference(self, listed: PackedNames) -> str | None:
        different = super()._difference(listed)
        if different is not None:
            return different
        pairs = zip_longest(listed, self._names())
        one, other = next((pair for pair in pairs if pair[0] != pair[1]), (None, None))
        changed = min(filter(None, (one, other)), default=None)
        return None if changed is None else f'{self.source} has changed: {os.fsdecode(changed)} was added or removed'
