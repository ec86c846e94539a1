# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log

from addp_mm.datasets.errors import check_folder_exists
from addp_mm.datasets.listed.file_scan import FileScan, changed_folder
from addp_mm.datasets.listed.fingerprints import names_fingerprint
from addp_mm.datasets.listed.own_images import ListedImages, names_of
from addp_mm.datasets.listed.packed_names import PackedNames, write_names
from addp_mm.registry import DATASETS

# What Pillow or OpenCV decodes as pixels, and arrays of numpy.
EXTENSIONS = (
    '.jpg',
    '.jpeg',
    '.jpe',
    '.jfif',
    '.png',
    '.apng',
    '.bmp',
    '.dib',
    '.tif',
    '.tiff',
    '.webp',
    '.gif',
    '.ppm',
    '.pgm',
    '.pbm',
    '.pnm',
    '.pam',
    '.jp2',
    '.j2k',
    '.jpx',
    '.jpf',
    '.jpc',
    '.j2c',
    '.avif',
    '.tga',
    '.sgi',
    '.pcx',
    '.dds',
    '.ras',
    '.sr',
    '.npy',
)


@DATASETS.register_module()
class ImageFiles(ListedImages):
    """All images below a folder, without labels; made for tens of millions of them.

    The files are listed once, in the order of their paths, and the list is kept on disk and shared
    by all workers and ranks. An image that is added or removed later is noticed: folders that were
    changed are listed again. For hidden files, links and loops see
    :class:`~addp_mm.datasets.listed.file_scan.FileScan`.

    Args:
        root: The folder.
        pipeline: See :class:`ListedImages`, as for all other arguments.
        extensions: Ends of image file names, compared in lower case.

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

    def _read(self, listed: int) -> dict:
        return dict(img_path=os.fsdecode(os.path.join(self._root, self.names[listed])))

    def _write_list(self) -> None:
        scan = self._scan()
        about = dict(root=str(self.source.absolute()), extensions=self.extensions)
        write_names(self.index_file, names_of(iter(scan), about, folders=lambda: scan.folders), about=about)
        if scan.dangling:
            print_log(
                f'{self.source}: {scan.dangling} links with names of images lead nowhere and were left out.',
                'current',
                WARNING,
            )

    def _scan(self) -> FileScan:
        # what a training writes is no image to train on, should the work dir lie among the images
        return FileScan(self.source, self.extensions, [self.index_file.parent] if self._lists_inside() else [])

    def _lists_inside(self) -> bool:
        folder, root = self.index_file.parent.resolve(), self.source.resolve()
        return folder != root and root in folder.parents

    def _difference(self, names: PackedNames) -> str | None:
        about = names.about
        if about.get('root') != str(self.source.absolute()):
            return f'another folder, {self.source}, was given in place of {about.get("root")}'
        if about['extensions'] != self.extensions:
            return f'{self.source}: other extensions were asked for'
        changed = changed_folder(self.source, about['folders'])
        if changed is None or (self.changed != 'rescan' and self._still_the_same(names)):
            return None
        return f'{changed} has changed'

    def _still_the_same(self, names: PackedNames) -> bool:
        """List the images again; where they are the same, keep only the new times of the folders."""
        scan = self._scan()
        if names_fingerprint(os.fsdecode(path) for (path,) in scan) != names.fingerprint:
            return False
        # a list that may not be written to is compared again next time
        with suppress(PermissionError):
            write_names(self.index_file, ((name,) for name in names), about={**names.about, 'folders': scan.folders})
        return True

    def _advice(self) -> str:
        return f' Searched for were {", ".join(self.extensions)}.'
