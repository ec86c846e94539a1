# Copyright (c) addp_mm contributors. Apache-2.0.
"""Lists of images: packed names, tar shards, LMDB databases."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import lmdb

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.lmdb_images import LMDBImages
from addp_mm.datasets.listed.packed_names import PackedNames, write_names
from addp_mm.datasets.listed.webdataset_images import WebDatasetImages
from addp_mm.datasets.readers.load_image import BrokenImageError
from addp_mm.errors import UserError
from fuzz_targets.target import Reader, Target, scratch

_BLOCK = 512
_REFUSED = 1  # an exit status


def read_names(data: bytes) -> None:
    """Read the bytes as a list of names, in each way; all ways give the same names."""
    names = PackedNames(scratch('images.names', data))
    by_number = [names[index] for index in range(len(names))]
    if by_number != list(names) or b''.join(by_number) != data[: sum(map(len, by_number))]:
        raise AssertionError('names by number and names in order differ')


def _names() -> Iterable[bytes]:
    for names in ([], [b'a.png'], [b'a/b.png', b'', 'ü.png'.encode()]):
        path = scratch('seed.names')
        write_names(path, names, dict(root='x'))
        yield path.read_bytes()


def read_tar(data: bytes) -> None:
    """List a tar shard and read its images. Zeros up to a whole block are added."""
    shard = scratch('tar/shard.tar', data + bytes(-len(data) % _BLOCK + 2 * _BLOCK))
    images = WebDatasetImages(shard, index_file=scratch('tar/list.names'), changed='rescan')
    for index in range(len(images)):
        images.get_data_info(index)


def _tars() -> Iterable[bytes]:
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode='w', format=format) as archive:
            for name in ('a.png', 'ü' * (20 if format == tarfile.USTAR_FORMAT else 60) + '.jpg', 'a.txt'):
                member = tarfile.TarInfo(name)
                member.size = 3
                archive.addfile(member, io.BytesIO(b'abc'))
        yield file.getvalue().rstrip(b'\0')


@cache
def _database() -> bytes:
    folder = scratch('lmdb_seed/data.mdb').parent
    with lmdb.open(str(folder), map_size=1 << 20, lock=False) as environment:
        for key in (b'a.png', b'b.png', b'num-samples'):
            with environment.begin(write=True) as transaction:
                transaction.put(key, b'x' * 9)
    return (folder / 'data.mdb').read_bytes()


def read_lmdb(data: bytes) -> None:
    """List a database with some changed bytes: (offset, value) in three bytes each, then a cut."""
    content, reader = bytearray(_database()), Reader(data)
    cut = reader.number(1 << 16)
    while reader:
        at = reader.number(1 << 16) % len(content)
        content[at] = reader.number(256)
    path = scratch('lmdb/data.mdb', bytes(content[: cut or None]))
    # the library maps the file into memory and trusts it: damage may end the process
    pid = os.fork()
    if not pid:
        os._exit(_listed(path.parent))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == _REFUSED:
        raise DatasetError('refused')
    if status:
        raise AssertionError(f'the process ended with {status}')


def _listed(folder: Path) -> int:
    """Exit status of a process that lists and reads a database."""
    try:
        images = LMDBImages(folder, index_file=scratch('lmdb_list/list.names'), changed='rescan')
        for index in range(len(images)):
            images.get_data_info(index)
    except UserError:
        return _REFUSED
    except Exception:
        return 2
    return 0


NAMES = Target(
    read_names,
    _names,
    words=(
        b'"count": ',
        b'"bytes": ',
        b'"about": {}',
        b'"fingerprint": ""',
        b'addp_mm names 3\n',
        json.dumps(None).encode(),
    ),
)
TAR = Target(
    read_tar,
    _tars,
    allowed=(BrokenImageError,),
    words=(b'ustar\x0000', b'ustar  \0', b'././@LongLink', b'path=', b'size=', b'.png'),
)
LMDB = Target(read_lmdb, lambda: (b'\0\0', b'\0\x10', b'\0\0\0\0\0'))
