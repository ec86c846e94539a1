# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images in the tar shards of a WebDataset as a dataset."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.tar_members import tar_members
from addp_mm.datasets.readers.load_image import BrokenImageError
from addp_mm.registry import DATASETS

# a member of these files cannot be read without the members before it
_COMPRESSED = ('.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst', '.tar.lz4')


def is_shard_name(name: str) -> bool:
    """Whether a file is a tar file by its name, compressed or not."""
    return name.lower().endswith(('.tar', *_COMPRESSED))


@DATASETS.register_module()
class WebDatasetImages(ListedImages):
    """Images in the tar shards of a WebDataset, without labels.

    The members are listed once with their offsets. Each image can then be read separately, without
    unpacking, so that the order of a training is random over all shards. Of a shard that is cut
    short, the whole members are used, and the cut one is a broken image.

    Args:
        shards: A folder of ``.tar`` files, a ``.tar`` file, or a pattern like
            ``shards/train-*.tar``.
        pipeline: Transforms. Defaults to (): none.
        index_file: The file of the list. Defaults to None: see :class:`ListedImages`.
        extensions: Extensions of images among the members, compared in lower case. Defaults to all
            formats that can be read.
        **options: See :class:`ListedImages`.

    Raises:
        DatasetError: There are no shards, or one of them is compressed or damaged.
    """

    def __init__(
        self,
        shards: str | Path,
        pipeline: Sequence = (),
        index_file: str | Path | None = None,
        extensions: Sequence[str] = EXTENSIONS,
        **options,
    ) -> None:
        folder = glob.escape(str(shards))  # its name may contain brackets
        pattern = os.path.join(folder, '*.tar') if os.path.isdir(shards) else str(shards)
        self.shards = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not self.shards:
            raise DatasetError(
                f'{pattern}: there are no tar files. Shards must be uncompressed, so that each image can be read at '
                'once: decompress them (gunzip, unzstd, …), or unpack them and give the folder.'
            )
        self.extensions = sorted(extension.lower() for extension in extensions)
        super().__init__(shards, pipeline, index_file, **options)

    def name(self, index: int) -> str:
        """The name of a member in its shard."""
        return super().name(index).split(':', 3)[-1]

    def _read(self, row: int) -> dict:
        path, offset, size, name = self._member(row)
        with open(path, 'rb') as file:
            end = file.seek(0, os.SEEK_END)
            if offset + size > end:  # before the read, which would reserve the memory that a header claims
                raise BrokenImageError(
                    f'{name}: the shard is cut short: it ends after {end:,} bytes, and this image needs the '
                    f'{size:,} bytes from {offset:,} on. Write or copy the shard again.'
                )
            file.seek(offset)
            content = file.read(size)
        return dict(img_path=name, img_bytes=content)

    def _path(self, row: int) -> str:
        return self._member(row)[3]

    def _member(self, row: int) -> tuple[str, int, int, str]:
        """The shard of an image, its offset and size in bytes, and its name after the shard's."""
        shard, offset, size, name = self.names[row].split(b':', 3)
        # the shards of the list: with changed='keep' the folder may have other shards now
        path = self.names.about['shards'][int(shard)][0]
        return path, int(offset), int(size), f'{path}:{name.decode("utf-8", "surrogateescape")}'

    def _names(self) -> Iterator[bytes]:
        """``SHARD:OFFSET:SIZE:NAME`` of each image, with the number of its shard."""
        ends = tuple(self.extensions)
        with tqdm(desc='Listing images', unit=' images', disable=None) as bar:
            for number, shard in enumerate(self.shards):
                for member in tar_members(shard):
                    if member.name.lower().endswith(ends):
                        name = member.name.encode('utf-8', 'surrogateescape')
                        yield f'{number}:{member.offset_data}:{member.size}:'.encode() + name
                        bar.update()

    def _about(self) -> dict:
        states = ((shard, os.stat(shard)) for shard in self.shards)
        shards = [[os.path.abspath(shard), state.st_size, state.st_mtime_ns] for shard, state in states]
        return dict(shards=shards, extensions=self.extensions)
