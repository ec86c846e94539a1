# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images in an LMDB database as a dataset."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.listed.lmdb_size import check_is_whole
from addp_mm.registry import DATASETS

try:
    import lmdb
except ImportError:
    lmdb = None  # type: ignore[assignment]

# Keys of common writers whose values are not images.
_NO_IMAGES = (b'__len__', b'__keys__', b'num-samples', b'length')
# Process and environment by path. A process can open a database only once, but several datasets may
# read it.
_OPEN: dict[str, tuple[int, Any]] = {}


@DATASETS.register_module()
class LMDBImages(ListedImages):
    """Images in an LMDB database, without labels. Needs ``pip install addp_mm[data]``.

    Each value is the content of an image file. The keys are listed once, in the database's order.

    Args:
        path: The database, a folder or a file.
        pipeline: Transforms. Defaults to (): none.
        index_file: The file of the list. Defaults to None: see :class:`ListedImages`.
        **options: See :class:`ListedImages`.

    Raises:
        ImportError: The package ``lmdb`` is not installed.
        DatasetError: The database does not exist, is damaged or cut short.
    """

    def __init__(
        self, path: str | Path, pipeline: Sequence = (), index_file: str | Path | None = None, **options
    ) -> None:
        if lmdb is None:
            raise ImportError('LMDBImages needs the package lmdb: pip install "addp_mm[data]"')
        if not Path(path).exists():
            raise DatasetError(f'{path}: this database does not exist. Check the path given, or that in the config.')
        super().__init__(path, pipeline, index_file, **options)

    def _open(self) -> Any:
        path = os.path.realpath(self.source)
        pid, environment = _OPEN.get(path, (None, None))
        if pid == os.getpid():
            return environment
        # A forked process must not use an environment of its parent.
        self._close()
        try:
            # Workers and ranks only read, and a lock file cannot be written on a read-only disk.
            environment = lmdb.open(path, subdir=os.path.isdir(path), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DatasetError(f'{self.source} cannot be opened as an LMDB database ({error}).') from error
        try:
            check_is_whole(path, environment)
        except DatasetError:
            environment.close()
            raise
        _OPEN[path] = os.getpid(), environment
        return environment

    def _close(self) -> None:
        _, environment = _OPEN.pop(os.path.realpath(self.source), (None, None))
        if environment is not None:
            environment.close()

    def _read(self, row: int) -> dict:
        key = self.names[row]
        with self._open().begin() as transaction:
            value = transaction.get(key)
        name = self._path(row)
        if value is None:
            raise FileNotFoundError(errno.ENOENT, 'the key no longer exists', name)
        # An empty value is a broken image: the decoder raises an error for it.
        return dict(img_path=name, img_bytes=bytes(value))

    def _path(self, row: int) -> str:
        return f'{self.source}:{self.names[row].decode("utf-8", "surrogateescape")}'

    def _names(self) -> Iterator[bytes]:
        with self._open().begin() as transaction:
            keys = transaction.cursor().iternext(keys=True, values=False)
            for key in tqdm(keys, desc='Listing images', unit=' images', disable=None):
                if bytes(key) not in _NO_IMAGES:
                    yield bytes(key)
        self._close()

    def _about(self) -> dict:
        """The path, and numbers that change when the database is written to."""
        environment = self._open()
        entries, transaction = environment.stat()['entries'], environment.info()['last_txnid']
        self._close()
        return dict(database=str(self.source.absolute()), entries=entries, transaction=transaction)
