# Copyright (c) addp_mm contributors. Apache-2.0.
"""Folders that the tools write: token ids, label maps, features and their statistics."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from addp_mm.datasets.token_labels.map_folder import MapFolder, create_folder
from addp_mm.datasets.token_labels.open_maps import open_label_maps
from addp_mm.datasets.token_labels.published_maps import PublishedMaps
from addp_mm.datasets.tokens.token_store import TokenWriter, finished_shards, open_ids, open_labels
from addp_mm.errors import UserError
from addp_mm.evaluation.feature_cache import CachedFeatures
from addp_mm.evaluation.feature_statistics import FeatureStatistics, GivenStatistics, frechet_distance
from addp_mm.evaluation.image_sets import open_images
from fuzz_targets.target import Reader, Target, part, scratch


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_tokens(data: bytes) -> None:
    """Open a folder of token ids: ``tokens.json``, ``labels.npy`` and ``ids.npy``."""
    reader = Reader(data)
    for name in ('tokens.json', 'labels.npy'):
        scratch(f'tokens/{name}', reader.part())
    root = scratch('tokens/ids.npy', reader.rest()).parent
    for folder, about in finished_shards(root):
        ids, labels = open_ids(folder / 'ids.npy', about), open_labels(folder, about)
        for row in range(min(len(ids), 100)):
            ids[row].astype(np.int64)
        if labels is not None:
            labels[:100].tolist()


def _tokens() -> Iterable[bytes]:
    settings = dict(tokenizer={}, images=dict(count=2), views={}, shard=dict(index=0, of=1), labels=dict(a=0))
    folder = scratch('tokens_seed/x').parent
    writer = TokenWriter(folder, settings, (2, 1, 3), 'uint16', np.array([0, 1]))
    if not writer.complete:
        writer.write(np.zeros((2, 1, 3), np.uint16), {})
        writer.save()
    about, labels, ids = (folder.joinpath(name).read_bytes() for name in ('tokens.json', 'labels.npy', 'ids.npy'))
    yield part(json.dumps(json.loads(about)).encode()) + part(labels) + ids


def read_label_maps(data: bytes) -> None:
    """Open a folder of label maps: ``label_maps.json``, the names, and the file of the maps."""
    reader = Reader(data)
    folder = scratch('maps/label_maps.json', reader.part()).parent
    scratch('maps/images.names', reader.part())
    for old in folder.glob('*.safetensors'):
        old.unlink()
    files, content = MapFolder(folder), reader.rest()
    for number in range(min(files.num_files, 3)):
        scratch(f'maps/{files.path(number).name}', content)
    maps = open_label_maps(folder, 4)
    for name in list(files.names)[:20]:
        maps.read(name.decode('utf-8', 'surrogateescape'))


def _label_maps() -> Iterable[bytes]:
    folder = scratch('maps_seed/x').parent
    settings = dict(num_classes=4, top_k=2, map_size=[1, 1], images_per_file=2)
    maps = create_folder(folder, ['a.png', 'b.png'], settings, {})
    maps.write(0, torch.full((2, 2, 1, 1), 0.5), torch.arange(2).view(1, 2, 1, 1).expand(2, 2, 1, 1))
    about, names = (folder.joinpath(name).read_bytes() for name in ('label_maps.json', 'images.names'))
    yield part(json.dumps(json.loads(about)).encode()) + part(names) + maps.path(0).read_bytes()


def read_published_map(data: bytes) -> None:
    """Read the bytes as the published label map of an image."""
    folder = scratch('published/class/image.pt', data).parents[1]
    PublishedMaps(folder, 4).read('class/image.png')


def _published_maps() -> Iterable[bytes]:
    file = io.BytesIO()
    torch.save(torch.zeros(2, 1, 1, 1, dtype=torch.float16), file, _use_new_zipfile_serialization=False)
    yield file.getvalue()


_ARRAYS = ('mu', 'sigma', 'count', 'extractor', 'fingerprint', 'features', 'arr_0')
_MEMBERS = (*(f'{name}.npy' for name in _ARRAYS), *_ARRAYS)


def read_npz(data: bytes) -> None:
    """Read an archive as statistics and as features: as it is, or (name, .npy file) one by one."""
    reader = Reader(data)
    path = scratch('statistics.npz', _archive(reader) if reader.number(2) else reader.rest())
    features = CachedFeatures.__new__(CachedFeatures)
    features.extractor = SimpleNamespace(name='network')
    features._load(path, 2)  # noqa: SLF001  # the public way computes what is damaged again
    with suppress(UserError):
        images = open_images(path)
        list(images.read(0, min(len(images), 4)))
    given = GivenStatistics.load(path, 'network', '')
    own = FeatureStatistics.load(path)
    if len(own.mean) < 100 and len(given.mean) < 100:
        frechet_distance(own, own)


def _archive(reader: Reader) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        while reader:
            name = reader.choice(_MEMBERS)
            if name not in archive.namelist():
                archive.writestr(name, reader.part())
    return file.getvalue()


def _npz() -> Iterable[bytes]:
    statistics = FeatureStatistics('a', 'b')
    statistics.update(torch.eye(2))
    path: Path = scratch('seed.npz')
    statistics.save(path)
    yield b'\0' + path.read_bytes()
    arrays = np.zeros(2), np.eye(2), np.array(2), np.array('a'), np.array('b'), np.zeros((2, 2), np.float32)
    arrays = *arrays, np.zeros((2, 1, 2, 3), np.uint8)
    yield b'\1' + b''.join(bytes([number]) + part(_npy(array)) for number, array in enumerate(arrays))


_NPY_WORDS = (
    b"'descr': ",
    b"'<f8'",
    b"'|O'",
    b"'<U1'",
    b"'shape': (2, 2), ",
    b"'fortran_order': True",
    b'\x93NUMPY\x01\x00',
)
TOKENS = Target(
    read_tokens,
    _tokens,
    words=(
        *_NPY_WORDS,
        b'"format": 2',
        b'"ids"',
        b'"shape"',
        b'"dtype"',
        b'"done"',
        b'"shard"',
        b'"of"',
        b'"index"',
        b'null',
    ),
)
LABEL_MAPS = Target(
    read_label_maps,
    _label_maps,
    words=(
        b'"num_classes": ',
        b'"top_k": ',
        b'"map_size": ',
        b'"images_per_file": ',
        b'"images": ',
        b'"scores"',
        b'null',
    ),
)
PUBLISHED_MAPS = Target(read_published_map, _published_maps)
NPZ = Target(read_npz, _npz, words=_NPY_WORDS)
