# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write, resume and check a folder of stored token ids."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from addp_mm.checkpoints.atomic_write import atomic_path, naming_file, remove_partials, write_json
from addp_mm.datasets.errors import DatasetError
from addp_mm.errors import first_few

IDS, PARTIAL, ABOUT, LABELS = 'ids.npy', 'ids.npy.partial', 'tokens.json', 'labels.npy'
FORMAT = 2
_SHARDS = 'shard-????-of-????'
_AGAIN = 'write the ids again into another folder (tools/dataset_converters/tokenize_images.py)'


class TokenStoreError(DatasetError):
    """Stored ids that are damaged or incomplete, or that belong to other images or settings."""


def differences(recorded: Mapping, wanted: Mapping, path: str = '') -> Iterator[str]:
    """Describe each value of ``wanted`` that differs in ``recorded``.

    Args:
        recorded: The stored values, as JSON. Keys that ``wanted`` lacks are ignored.
        wanted: The required values. Nested dicts are compared key by key.
        path: Prefix of the keys in the descriptions. Defaults to ''.
    """
    for key, value in wanted.items():
        name, found = f'{path}{key}', recorded.get(key)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            yield from differences(found, value, f'{name}.')
        elif json.loads(json.dumps(value)) != found:
            yield f'{name} is {_short(found)}, but {_short(value)} is needed'


def _short(value: object) -> str:
    text = str(value)
    if len(text) > 200:
        return f'{text[:190]}…'
    return f'{text[:12]}…' if len(text) == 64 else repr(value)


class TokenWriter:
    """Writes the ids of one shard of a dataset, row by row, and resumes an interrupted run.

    A row contains all views of an image. ``ids.npy.partial`` is renamed to ``ids.npy`` after the
    last row. ``tokens.json`` contains the settings, the number of rows that are synced to disk, and
    the images that could not be read. If the process is killed, all rows up to the last
    :meth:`save` remain. Labels can be added to a folder whose ids were written without them.

    Args:
        folder: The folder; it is created if it is missing.
        settings: Settings that determine the ids, as JSON: dicts ``tokenizer``, ``images``,
            ``views`` and ``shard``, and ``labels`` if there are any; and ``notes``, which are not
            compared.
        shape: (rows, views, tokens).
        dtype: Type of the ids.
        labels: Classes of the images of this shard, (rows,), for ``labels.npy``. Defaults to None.

    Attributes:
        done: Number of rows written so far.
        broken: Index, name and reason of each image that could not be read, as dicts.

    Raises:
        TokenStoreError: The folder contains other files, ids of other settings, or damaged ids.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping,
        shape: tuple[int, int, int],
        dtype: str,
        labels: np.ndarray | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.about = dict(format=FORMAT, **settings, ids=dict(shape=list(shape), dtype=str(np.dtype(dtype))))
        self.done = 0
        self.broken: list[dict] = []
        remove_partials(self.folder)
        if (self.folder / ABOUT).is_file():
            self._resume()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise TokenStoreError(f'{self.folder} is not empty and has no {ABOUT}: give another folder')
        else:
            self._write_about()
        if labels is not None and not (self.folder / LABELS).is_file():
            self._add_labels(labels)
        if self.complete:
            open_ids(self.folder / IDS, self.about)
        else:
            self._file = self._open_partial()
            self.save()

    @property
    def complete(self) -> bool:
        """Whether all rows are written."""
        return (self.folder / IDS).is_file()

    def write(self, ids: np.ndarray, broken: Mapping[int, tuple[str, str]]) -> None:
        """Add rows.

        Args:
            ids: (rows, views, tokens).
            broken: Name of each broken image and the reason, by the image's number in the whole
                list.
        """
        with naming_file(self.folder / PARTIAL):
            self._file.write(ids.astype(self.about['ids']['dtype']).tobytes())
        self.broken += [dict(index=index, name=name, reason=reason) for index, (name, reason) in broken.items()]
        self.done += len(ids)

    def save(self) -> None:
        """Sync the rows written so far to disk; after the last row, finish."""
        if self.complete:
            return
        with naming_file(self.folder / PARTIAL):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._write_about()
        if self.done == self.about['ids']['shape'][0]:
            self._file.close()
            os.replace(self.folder / PARTIAL, self.folder / IDS)

    def _write_about(self) -> None:
        write_json(self.folder / ABOUT, dict(self.about, done=self.done, broken=self.broken))

    def _add_labels(self, labels: np.ndarray) -> None:
        with atomic_path(self.folder / LABELS) as partial, open(partial, 'wb') as file:
            np.save(file, labels.astype(np.int32))
        self._write_about()

    def _resume(self) -> None:
        recorded = read_about(self.folder)
        ignored = ['notes']
        if 'labels' in recorded:
            self.about.setdefault('labels', recorded['labels'])
        else:
            ignored.append('labels')
        other = list(differences(recorded, {key: value for key, value in self.about.items() if key not in ignored}))
        if other:
            raise TokenStoreError(
                f'{self.folder} has ids of other settings: {"; ".join(other)}. Give the '
                'same arguments to resume, or give another folder'
            )
        self.done, self.broken = recorded['done'], recorded['broken']

    def _open_partial(self) -> BinaryIO:
        """Open the file at the end of the saved rows. Later rows are written again."""
        path, (rows, views, length) = self.folder / PARTIAL, self.about['ids']['shape']
        dtype = np.dtype(self.about['ids']['dtype'])
        header = dict(descr=np.lib.format.dtype_to_descr(dtype), fortran_order=False, shape=(rows, views, length))
        size = path.stat().st_size if path.is_file() else 0
        file = open(path, 'r+b' if self.done else 'wb')  # noqa: SIM115  (it stays open until the last row)
        np.lib.format.write_array_header_1_0(file, header)
        end = file.tell() + self.done * views * length * dtype.itemsize
        if self.done and size < end:
            raise TokenStoreError(
                f'{path}: truncated, it has {size:,} of {end:,} bytes. Remove {self.folder} and {_AGAIN}'
            )
        file.truncate(end)
        file.seek(end)
        return file


def read_about(folder: Path) -> dict:
    """Read ``tokens.json``.

    Raises:
        TokenStoreError: The file is damaged, or of another format.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text())
        if about['format'] == FORMAT:
            return about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenStoreError(f'{path}: damaged ({error}). Remove {folder} and {_AGAIN}') from error
    raise TokenStoreError(f'{path}: format {about["format"]}, but this version of addp_mm reads {FORMAT}: {_AGAIN}')


def open_ids(path: Path, about: Mapping) -> np.memmap:
    """Map a file of ids into memory.

    Args:
        path: The ``.npy`` file.
        about: The content of ``tokens.json``.

    Raises:
        TokenStoreError: The ids have another shape or type than in ``about``, or the file is
            truncated.
    """
    try:
        ids = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TokenStoreError(f'{path}: cannot be read ({error}). Remove {path.parent} and {_AGAIN}') from error
    if [*ids.shape] != about['ids']['shape'] or str(ids.dtype) != about['ids']['dtype']:
        raise TokenStoreError(
            f'{path} has {ids.dtype} of shape {ids.shape}, but {ABOUT} has '
            f'{about["ids"]["dtype"]} of {tuple(about["ids"]["shape"])}. Remove {path.parent} and '
            f'{_AGAIN}'
        )
    return ids


def open_labels(folder: Path, about: Mapping) -> np.memmap | None:
    """Map the classes of a folder's images into memory.

    Args:
        folder: The folder of the ids.
        about: The content of its ``tokens.json``.

    Returns:
        (rows,), integers; None if the ids were written without labels.

    Raises:
        TokenStoreError: The file is missing, or does not have one label for each image.
    """
    if 'labels' not in about:
        return None
    path, rows = folder / LABELS, about['ids']['shape'][0]
    again = 'Run tokenize_images.py with the same arguments again to write it'
    try:
        labels = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TokenStoreError(f'{path}: cannot be read ({error}). Remove it. {again}') from error
    if labels.shape != (rows,) or labels.dtype.kind != 'i':
        raise TokenStoreError(
            f'{path} has {labels.dtype} of shape {labels.shape}, not {rows} labels. Remove it. {again}'
        )
    return labels


def finished_shards(root: str | Path) -> list[tuple[Path, dict]]:
    """Find the folders of a dataset's ids.

    Args:
        root: The folder of the ids; or the folder of ``shard-0000-of-0004`` and so on, if several
            processes wrote them.

    Returns:
        Each folder with the content of its ``tokens.json``, in the order of the images.

    Raises:
        TokenStoreError: There are no ids, a shard is missing or incomplete, or the shards do not
            belong together.
    """
    root = Path(root)
    folders = [root] if (root / ABOUT).is_file() else sorted(path.parent for path in root.glob(f'{_SHARDS}/{ABOUT}'))
    if not folders:
        raise TokenStoreError(
            f'{root} has no stored ids ({ABOUT}). Write them: python '
            f'tools/dataset_converters/tokenize_images.py TOKENIZER IMAGES {root}'
        )
    abouts = [read_about(folder) for folder in folders]
    for folder, about in zip(folders, abouts, strict=True):
        rows = about['ids']['shape'][0]
        if about['done'] < rows or not (folder / IDS).is_file():
            raise TokenStoreError(
                f'{folder} is incomplete, {about["done"]:,} of {rows:,} images are done. Run '
                'tokenize_images.py with the same arguments again to resume'
            )
        expected = {key: about[key] for key in ('tokenizer', 'images', 'views')}
        expected.update(labels=about.get('labels'), shard=dict(of=about['shard']['of']))
        other = list(differences(abouts[0], expected))
        if other:
            raise TokenStoreError(
                f'{folder} and {folders[0]} do not belong together: {first_few(other)}. Remove the wrong ones'
            )
    number = abouts[0]['shard']['of']
    missing = sorted(set(range(number)) - {about['shard']['index'] for about in abouts})
    if missing:
        raise TokenStoreError(
            f'{root}: of {number} shards, {first_few(missing)} are missing. Run tokenize_images.py '
            f'with --shard I/{number} for each of them'
        )
    return list(zip(folders, abouts, strict=True))
