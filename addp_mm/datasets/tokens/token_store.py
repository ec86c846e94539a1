# Copyright (c) addp_mm contributors. Apache-2.0.
"""A folder of stored token ids: what is in it, how it is written piece by piece and checked."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.datasets.listed.image_folder import DatasetError
from addp_mm.errors import first_few

IDS, PARTIAL, ABOUT, BROKEN = 'ids.npy', 'ids.npy.partial', 'tokens.json', 'broken.jsonl'
FORMAT = 1
_AGAIN = 'write the ids again into another folder (tools/dataset_converters/tokenize_images.py)'


class TokenStoreError(DatasetError):
    """Stored ids that are damaged, unfinished, or belong to something else than is asked for."""


def differences(recorded: Mapping, wanted: Mapping, path: str = '') -> Iterator[str]:
    """Words on each value of ``wanted`` that is another one in ``recorded``; nested dicts are walked."""
    for key, value in wanted.items():
        name, found = f'{path}{key}', recorded.get(key)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            yield from differences(found, value, f'{name}.')
        elif json.loads(json.dumps(value)) != found:
            yield f'{name} is {_short(found)} there and {_short(value)} here'


def _short(value) -> str:
    text = str(value)
    return f'{text[:12]}…' if len(text) == 64 else repr(value)


class TokenWriter:
    """Writes the ids of one shard of a data set, row by row, and goes on where an earlier process was stopped.

    A row holds all views of an image. ``ids.npy.partial`` becomes ``ids.npy`` after the last row;
    ``tokens.json`` says what the ids belong to and how many rows are safe on disk; ``broken.jsonl`` names images that could not be read.
    Whenever the process is killed, all rows up to the last :meth:`save` remain.

    Args:
        folder: Made where there is none.
        settings: What the ids depend on, as JSON: dicts ``tokenizer``, ``images``, ``views``,
            ``shard``; and ``notes``, on which nothing depends.
        shape: (rows, views, tokens).
        dtype: Of the ids.

    Raises:
        TokenStoreError: The folder holds something else, ids of other settings, or damaged ones.
    """

    def __init__(self, folder: str | Path, settings: Mapping, shape: tuple[int, int, int], dtype: str) -> None:
        self.folder = Path(folder)
        self.about = dict(format=FORMAT, **settings, ids=dict(shape=list(shape), dtype=str(np.dtype(dtype))))
        self.done, self._broken_bytes, self._num_broken = 0, 0, 0
        if (self.folder / ABOUT).is_file():
            self._take_up()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise TokenStoreError(f'{self.folder} is not empty and holds no {ABOUT}: name another folder')
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_about()
        self._ids = None if self.complete else self._open_ids(tuple(shape))

    @property
    def complete(self) -> bool:
        """Whether all rows are written and nothing is left to do."""
        return (self.folder / IDS).is_file()

    @property
    def num_broken(self) -> int:
        """Number of images recorded as broken so far."""
        return self._num_broken

    def write(self, ids: np.ndarray, broken: Mapping[int, tuple[str, str]]) -> None:
        """Add rows.

        Args:
            ids: Shape (rows, views, tokens).
            broken: Index of an image in the whole list to its name and to what is wrong with it.
        """
        self._ids[self.done : self.done + len(ids)] = ids
        if broken:
            with open(self.folder / BROKEN, 'ab') as file:
                for index, (name, reason) in broken.items():
                    file.write(json.dumps(dict(index=index, name=name, reason=reason)).encode() + b'\n')
                file.flush()
                os.fsync(file.fileno())
                self._broken_bytes = file.tell()
            self._num_broken += len(broken)
        self.done += len(ids)

    def save(self) -> None:
        """Make the rows written so far safe; after the last row, finish."""
        if self.complete:
            return
        self._ids.flush()
        self._write_about()
        if self.done == len(self._ids):
            os.replace(self.folder / PARTIAL, self.folder / IDS)

    def _write_about(self) -> None:
        about = dict(self.about, done=self.done, broken=self._num_broken, broken_bytes=self._broken_bytes)
        write_json(self.folder / ABOUT, about)

    def _take_up(self) -> None:
        recorded = read_about(self.folder)
        other = list(differences(recorded, {key: value for key, value in self.about.items() if key != 'notes'}))
        if other:
            raise TokenStoreError(
                f'{self.folder} holds ids that were made otherwise: {"; ".join(other)}. Give the '
                'same arguments to go on with it, or name another folder'
            )
        self.done, self._num_broken, self._broken_bytes = (recorded[key] for key in ('done', 'broken', 'broken_bytes'))
        if (self.folder / BROKEN).exists():
            # rows beyond the last save are made again, and so is what is wrong with them
            os.truncate(self.folder / BROKEN, self._broken_bytes)

    def _open_ids(self, shape: tuple[int, int, int]) -> np.ndarray:
        path, dtype = self.folder / PARTIAL, np.dtype(self.about['ids']['dtype'])
        if not self.done:
            ids = np.lib.format.open_memmap(path, 'w+', dtype, shape)
            _reserve(path)
            return ids
        ids = open_ids(path, 'r+', self.about)
        if self.done == shape[0]:
            os.replace(path, self.folder / IDS)
        return ids


def _reserve(path: Path) -> None:
    """Take the disk space now: a memory map that finds none later ends the process without a word."""
    if not hasattr(os, 'posix_fallocate'):
        return
    with open(path, 'r+b') as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                size = os.fstat(file.fileno()).st_size / 2**20
                raise TokenStoreError(f'{path}: no space left on the disk for {size:,.0f} MiB of ids') from error


def read_about(folder: Path) -> dict:
    """What ``tokens.json`` says.

    Raises:
        TokenStoreError: It is damaged, or of another format.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text())
        if about['format'] == FORMAT:
            return about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenStoreError(f'{path}: damaged ({error}). Remove {folder} and {_AGAIN}') from error
    raise TokenStoreError(f'{path}: format {about["format"]}, this version of addp_mm reads format {FORMAT}: {_AGAIN}')


def open_ids(path: Path, mode: str, about: Mapping) -> np.ndarray:
    """The memory-mapped ids of a file.

    Raises:
        TokenStoreError: They are not of the shape or type of ``about``, or the file is cut off.
    """
    try:
        ids = np.load(path, mmap_mode='r')  # which refuses a file that is cut off; 'r+' would fill it up with zeros
        ids = ids if mode == 'r' else np.load(path, mmap_mode=mode)
    except (OSError, ValueError, EOFError) as error:
        raise TokenStoreError(f'{path}: cannot be read ({error}). Remove {path.parent} and {_AGAIN}') from error
    if [*ids.shape] != about['ids']['shape'] or str(ids.dtype) != about['ids']['dtype']:
        raise TokenStoreError(
            f'{path} holds {ids.dtype} of shape {ids.shape}, {ABOUT} beside it says '
            f'{about["ids"]["dtype"]} of {tuple(about["ids"]["shape"])}. Remove {path.parent} and '
            f'{_AGAIN}'
        )
    return ids


def broken_images(folder: Path) -> list[dict]:
    """Index, name and reason of each image that was left out, in the order of the list."""
    path = folder / BROKEN
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def finished_shards(root: str | Path) -> list[tuple[Path, dict]]:
    """Folders of a data set's ids, in order, each with what its ``tokens.json`` says.

    Args:
        root: The folder that was written; or, where several processes shared the work, the folder
            of their folders ``shard-0000-of-0004`` and so on.

    Raises:
        TokenStoreError: There is none, one is missing or unfinished, or they do not belong
            together.
    """
    root = Path(root)
    folders = [root] if (root / ABOUT).is_file() else sorted(path.parent for path in root.glob(f'shard-*-of-*/{ABOUT}'))
    if not folders:
        raise TokenStoreError(
            f'{root}: no stored ids ({ABOUT}) in this folder. Write them: python '
            f'tools/dataset_converters/tokenize_images.py TOKENIZER IMAGES {root}'
        )
    abouts = [read_about(folder) for folder in folders]
    _require_one_partition(folders, [about['shard'] for about in abouts])
    for folder, about in zip(folders, abouts, strict=True):
        rows = about['ids']['shape'][0]
        if about['done'] < rows or not (folder / IDS).is_file():
            raise TokenStoreError(
                f'{folder}: unfinished, {about["done"]:,} of {rows:,} images are done. Run '
                'tokenize_images.py with the same arguments again to go on'
            )
        other = list(differences(abouts[0], {key: about[key] for key in ('tokenizer', 'images', 'views')}))
        if other:
            raise TokenStoreError(
                f'{folder} and {folders[0]} do not belong together: {first_few(other)}. Remove those that are not meant'
            )
    number = abouts[0]['shard']['of']
    missing = sorted(set(range(number)) - {about['shard']['index'] for about in abouts})
    if missing:
        raise TokenStoreError(
            f'{root}: of {number} shards, {first_few(missing)} are missing. Run tokenize_images.py '
            f'with --shard I/{number} for each of them'
        )
    return sorted(zip(folders, abouts, strict=True), key=lambda pair: pair[1]['shard']['index'])


def _require_one_partition(folders: Sequence[Path], shards: Sequence[Mapping]) -> None:
    """Raise :class:`TokenStoreError` where shards are not different parts of one partition: rows would come twice."""
    partitions: dict[int, dict[int, Path]] = {}
    for folder, shard in zip(folders, shards, strict=True):
        twin = partitions.setdefault(shard['of'], {}).setdefault(shard['index'], folder)
        if twin != folder:
            raise TokenStoreError(f'{twin} and {folder} are both shard {shard["index"]} of {shard["of"]}. Remove one')
    # what belongs there is the whole one, or else the larger one
    meant = max(partitions, key=lambda of: (len(partitions[of]) == of, len(partitions[of])))
    odd = [folder for of, parts in partitions.items() if of != meant for folder in parts.values()]
    if odd:
        raise TokenStoreError(
            f'{first_few(odd)}: not of the partition into {meant} of which '
            f'{first_few(partitions[meant].values())} is part. Remove the folders that are not meant'
        )
