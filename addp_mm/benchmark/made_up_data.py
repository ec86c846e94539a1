# Copyright (c) addp_mm contributors. Apache-2.0.
"""Data sets of many images that do not exist, to measure how their cost grows."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from addp_mm.datasets import ImageFiles, LMDBImages, TokenIds, WebDatasetImages
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.tokens.token_store import TokenWriter

_IN_A_FOLDER = _IN_A_SHARD = 1000
_CHUNK = 100_000
_TOKENS = 16


@dataclass(frozen=True)
class Kind:
    """A kind of data sets.

    Args:
        title: Its name in tables.
        write: Writes the data of so many images into a folder.
        open: Opens the data set in that folder; its list is written when it is opened first.
    """

    title: str
    write: Callable[[Path, int], None]
    open: Callable[[Path, int], Any]


def names(count: int) -> Iterator[str]:
    """Names of images, in sorted order."""
    return (f'{index // _IN_A_FOLDER:06d}/{index:08d}.jpg' for index in range(count))


class MadeUpImages(ListedImages):
    """A list of images without any file.

    Args:
        folder: Folder of the list.
        count: Number of images.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        super().__init__(folder, index_file=folder / 'list')

    def _read(self, row: int) -> dict:
        return dict(img_path=os.path.join(self.source, os.fsdecode(self.names[row])))

    def _names(self) -> Iterator[bytes]:
        return (name.encode() for name in names(self.count))

    def _about(self) -> dict:
        return dict(count=self.count)


def _write_nothing(folder: Path, count: int) -> None:
    """A list needs no data."""


def _write_files(folder: Path, count: int) -> None:
    """Empty files, a thousand in a folder."""
    for index, name in enumerate(names(count)):
        path = os.path.join(folder, 'images', name)
        if index % _IN_A_FOLDER == 0:
            os.makedirs(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def _write_lmdb(folder: Path, count: int) -> None:
    """A database with values of one byte."""
    import lmdb

    with lmdb.open(str(folder / 'lmdb'), map_size=2**24 + 256 * count) as database:
        pairs = ((name.encode(), b'x') for name in names(count))
        while chunk := list(islice(pairs, _CHUNK)):
            with database.begin(write=True) as transaction:
                transaction.cursor().putmulti(chunk, append=True)


def _write_shards(folder: Path, count: int) -> None:
    """Shards with empty members. Those of a thousand are one file under many names."""
    (folder / 'shards').mkdir()
    paths = [folder / f'shards/train-{number:06d}.tar' for number in range(-(-count // _IN_A_SHARD))]
    _write_shard(paths[-1], count - _IN_A_SHARD * (len(paths) - 1))
    if paths[1:]:
        _write_shard(paths[0], _IN_A_SHARD)
    for path in paths[1:-1]:
        os.link(paths[0], path)


def _write_shard(path: Path, count: int) -> None:
    with tarfile.open(path, 'w') as archive:
        for name in names(count):
            archive.addfile(tarfile.TarInfo(name))


def _write_ids(folder: Path, count: int) -> None:
    settings = dict(
        tokenizer=dict(fingerprint='', codebook_size=64),
        images=dict(count=count, fingerprint=''),
        views=dict(count=1),
        shard=dict(index=0, of=1),
    )
    writer = TokenWriter(folder / 'ids', settings, (count, 1, _TOKENS), 'uint16')
    for start in range(0, count, _CHUNK):
        writer.write(np.zeros((min(_CHUNK, count - start), 1, _TOKENS), np.uint16), {})
    writer.save()


def _write_annotations(folder: Path, count: int) -> None:
    with open(folder / 'train.txt', 'w') as file:
        file.writelines(f'{name} {index % 1000}\n' for index, name in enumerate(names(count)))


def _open_mmpretrain(folder: Path, count: int) -> Any:  # noqa: ARG001  # as all of them
    from mmengine.registry import DefaultScope
    from mmpretrain.datasets import CustomDataset

    import addp_mm.registry  # noqa: F401  # before mmpretrain, whose imports it prepares

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        classes = [str(number) for number in range(1000)]
        return CustomDataset(str(folder), ann_file='train.txt', metainfo=dict(classes=classes))


KINDS = {
    'list': Kind('a list without files', _write_nothing, MadeUpImages),
    'folder': Kind('ImageFiles', _write_files, lambda path, _: ImageFiles(path / 'images', index_file=path / 'list')),
    'lmdb': Kind('LMDBImages', _write_lmdb, lambda path, _: LMDBImages(path / 'lmdb', index_file=path / 'list')),
    'webdataset': Kind(
        'WebDatasetImages', _write_shards, lambda path, _: WebDatasetImages(path / 'shards', index_file=path / 'list')
    ),
    'ids': Kind('TokenIds', _write_ids, lambda path, _: TokenIds(path / 'ids')),
    'mmpretrain': Kind("mmpretrain's CustomDataset", _write_annotations, _open_mmpretrain),
}
