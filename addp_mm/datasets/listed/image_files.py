# Copyright (c) addp_mm contributors. Apache-2.0.
"""All images below a folder as a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from addp_mm.datasets.errors import check_folder_exists
from addp_mm.datasets.listed.file_scan import FileScan, changed_folder
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.packed_names import PackedNames, names_fingerprint, write_names
from addp_mm.registry import DATASETS

# Formats that Pillow, OpenCV or tifffile decodes, and arrays of numpy.
EXTENSIONS = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.tif', '.tiff', '.webp', '.gif'),
    *('.ppm', '.pgm', '.pbm', '.pnm', '.pam', '.jp2', '.j2k', '.jpx', '.jpf', '.jpc', '.j2c', '.avif'),
    *('.tga', '.sgi', '.pcx', '.dds', '.ras', '.sr', '.npy'),
)


@DATASETS.register_module()
class ImageFiles(ListedImages):
    """All images below a folder, without labels; made for tens of millions of them.

    The files are listed once, in the order of their paths. The list is on disk and shared by all
    workers and ranks. If a folder has changed since, the images are listed again and compared. For
    hidden files and links see :class:`~addp_mm.datasets.listed.file_scan.FileScan`.

    Args:
        root: The folder.
        pipeline: Transforms. Defaults to none.
        index_file: The file of the list. Defaults to None, see :class:`ListedImages`.
        extensions: Ends of image file names, compared in lower case. Defaults to all formats that
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
        return dict(img_path=os.fsdecode(os.path.join(self._root, self.names[row])))

    def _write_list(self) -> None:
        scan = self._scan()
        write_names(
            self.index_file,
            scan,
            about=lambda: dict(root=str(self.source.absolute()), extensions=self.extensions, folders=scan.folders),
        )
        if scan.dangling:
            print_log(
                f'{self.source}: {scan.dangling} links with names of images have no target and were left out.',
                'current',
                WARNING,
            )

    def _scan(self) -> FileScan:
        # A work dir may be inside the folder. What a training writes there is not listed.
        return FileScan(self.source, self.extensions, [self.index_file.parent] if self._lists_inside() else [])

    def _lists_inside(self) -> bool:
        folder, root = self.index_file.parent.resolve(), self.source.resolve()
        return folder != root and root in folder.parents

    def _difference(self, names: PackedNames) -> str | None:
        about = names.about
        if about.get('root') != str(self.source.absolute()):
            return f'another folder, {self.source}, was given instead of {about.get("root")}'
        if about['extensions'] != self.extensions:
            return f'{self.source}: other extensions were asked for'
        changed = changed_folder(self.source, about['folders'])
        if changed is None or (self.changed != 'rescan' and self._still_the_same(names)):
            return None
        return f'{changed} has changed'

    def _still_the_same(self, names: PackedNames) -> bool:
        """List the images again; if they are the same, only store the new times of the folders."""
        scan = self._scan()
        if names_fingerprint(os.fsdecode(path) for (path,) in scan) != names.fingerprint:
            return False
        # A list without write permission is compared again next time.
        with suppress(PermissionError):
            write_names(
                self.index_file, ((name,) for name in names), about=lambda: {**names.about, 'folders': scan.folders}
            )
        return True

    def _advice(self) -> str:
        return f' The search was for {", ".join(self.extensions)}.'
