# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images in the tar shards of a WebDataset as a data set."""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.packed_names import PackedNames, write_names
from addp_mm.registry import DATASETS

# A single member of these cannot be read without all that is before it.
_COMPRESSED = ('.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst', '.tar.lz4')


def is_shard_name(name: str) -> bool:
    """Whether a file is a tar file by its name, compressed or not."""
    return name.lower().endswith(('.tar', *_COMPRESSED))


@DATASETS.register_module()
class WebDatasetImages(ListedImages):
    """Images in the tar shards of a WebDataset, without labels.

    The members are listed once with their offsets. Each image is then read by itself, without
    unpacking, so the order of a training is random over all shards.

    Args:
        shards: A folder of ``.tar`` files, one such file, or a pattern like ``shards/train-*.tar``.
        pipeline: Transforms. Defaults to none.
        index_file: The file of the list. Defaults to None, see :class:`ListedImages`.
        extensions: Ends of members' names that are images, compared in lower case. Defaults to all
            formats that can be read.
        **options: See :class:`ListedImages`.

    Raises:
        DatasetError: There are no such shards, or one of them is compressed or damaged.
    """

    columns = ('shard', 'offset', 'size')

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
        compressed = [
            shard
            for shard in self.shards or sorted(glob.glob(os.path.join(folder, '*')))
            if shard.lower().endswith(_COMPRESSED)
        ]
        if compressed:
            raise DatasetError(
                f'{compressed[0]} is compressed; shards must be uncompressed tar files, so that each '
                'image can be read at once. Decompress them (gunzip, unzstd, …), or unpack them and '
                'give the folder.'
            )
        if not self.shards:
            raise DatasetError(f'{pattern}: no such tar files. Check the path given, or that in the config.')
        self.extensions = sorted(extension.lower() for extension in extensions)
        super().__init__(shards, pipeline, index_file, **options)

    def _read(self, row: int) -> dict:
        shard, offset, size = (int(self.names.column(column)[row]) for column in self.columns)
        # The shards of the list: with changed='keep' there may be other ones now.
        path = self.names.about['shards'][shard][0]
        with open(path, 'rb') as file:
            file.seek(offset)
            content = file.read(size)
        return dict(img_path=f'{path}:{self.names[row].decode("utf-8", "surrogateescape")}', img_bytes=content)

    def _write_list(self) -> None:
        about = dict(shards=self._state(), extensions=self.extensions)
        write_names(self.index_file, self._members(), self.columns, lambda: about)

    def _members(self) -> Iterator[tuple[bytes, int, int, int]]:
        ends = tuple(self.extensions)
        with tqdm(desc='Listing images', unit=' images', disable=None) as bar:
            for number, shard in enumerate(self.shards):
                try:
                    with tarfile.open(shard, 'r:') as archive:
                        while (member := archive.next()) is not None:
                            # tarfile would keep all members in memory.
                            archive.members.clear()  # type: ignore[attr-defined]
                            if member.isreg() and not member.issparse() and member.name.lower().endswith(ends):
                                name = member.name.encode('utf-8', 'surrogateescape')
                                yield name, number, member.offset_data, member.size
                                bar.update()
                except (tarfile.TarError, EOFError) as error:
                    raise DatasetError(
                        f'{shard} cannot be read as an uncompressed tar file ({error}). Unpack or replace it.'
                    ) from error

    def _state(self) -> list:
        states = ((shard, os.stat(shard)) for shard in self.shards)
        return [[os.path.abspath(shard), state.st_size, state.st_mtime_ns] for shard, state in states]

    def _difference(self, names: PackedNames) -> str | None:
        about = names.about
        if about.get('extensions') != self.extensions:
            return f'{self.source}: other extensions were asked for'
        seen = {tuple(state) for state in about['shards']}
        changed = [state[0] for state in self._state() if tuple(state) not in seen]
        if changed:
            return f'{changed[0]} has changed or was added'
        return None if len(seen) == len(self.shards) else f'{self.source}: shards were removed'

    def _advice(self) -> str:
        return f' The search was for members that end in {", ".join(self.extensions)}.'
