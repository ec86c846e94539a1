# Copyright (c) addp_mm contributors. Apache-2.0.
"""numpy's objects in checkpoints: the same values as saved, and no forged types."""

import argparse
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file

OBJECTS = np.dtype('O')
#: States that make numpy take bytes for the addresses of objects, or read beyond an array.
FORGED = {
    'fields': (3, '|', None, ('a',), {'a': (OBJECTS, 0)}, 8, 1, 0),
    'subarray': (3, '<', (OBJECTS, (1,)), None, None, 8, 8, 0),
    'flags': (3, '<', None, None, None, -1, -1, 63),
    'size': (3, '<', None, None, None, 800, 8, 0),
    'metadata': (4, '|', None, ('a',), {'a': (OBJECTS, 0)}, 8, 1, 0, {}),
}


class Pickled:
    """An object with a given pickle."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def array_of(kind, shape=(1,), content=b'AAAAAAAA'):
    function, args, _ = np.zeros(1).__reduce__()
    return Pickled(function, args, (1, shape, kind, False, content))


def dtype_of(text, state=(3, '<', None, None, None, -1, -1, 0)):
    return Pickled(np.dtype, (text, False, True), state)


def saved(path, content, is_zip=True):
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


LOAD = """
import sys
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file
for path in sys.argv[1:]:
    try:
        print(repr(load_checkpoint_file(path)))
    except CheckpointError as error:
        print(error)
"""


def test_forged_types_do_not_reach_numpy(tmp_path):
    paths = []
    for text in ('f8', 'i8', 'S8', 'V8'):
        for name, state in FORGED.items():
            array = array_of(dtype_of(text, state))
            history = Pickled(HistoryBuffer, (), dict(_log_history=array, _count_history=np.ones(1), max_length=9))
            paths.append(saved(tmp_path / f'{text}_{name}.pth', dict(array=array)))
            paths.append(saved(tmp_path / f'{text}_{name}_history.pth', dict(history=history), is_zip=False))
    # without the check the process ends with a segmentation fault
    done = subprocess.run([sys.executable, '-c', LOAD, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    lines = done.stdout.strip().splitlines()
    assert len(lines) == len(paths)
    # the state has no effect: bytes stay bytes of the named type
    assert all('array' in line or 'history' in line or 'V8' in line for line in lines)
    assert sum('only numbers, text and objects are read' in line for line in lines) == 2 * len(FORGED)


@pytest.mark.parametrize(
    'shape, content',
    [
        ((2,), b'AAAAAAAA'),
        ((1,), b'A'),
        ((-1, -1), b'AAAAAAAA'),
        ((2**62, 4), b''),
        ((True,), b'AAAAAAAA'),
        (('x',), b''),
    ],
)
def test_the_content_of_an_array_has_its_size(tmp_path, shape, content):
    path = saved(tmp_path / 'array.pth', dict(array=array_of(dtype_of('f8'), shape, content)))
    with pytest.raises(CheckpointError, match='array'):
        load_checkpoint_file(path)


def test_objects_are_no_bytes(tmp_path):
    path = saved(tmp_path / 'array.pth', dict(array=array_of(dtype_of('O8'))))
    with pytest.raises(CheckpointError, match='has other content'):
        load_checkpoint_file(path)


def test_a_number_has_the_size_of_its_type(tmp_path):
    core = getattr(np, '_core', None) or np.core
    for kind in ('f8', 'O8', 'U9'):
        number = Pickled(core.multiarray.scalar, (dtype_of(kind), b'AAAA'))
        with pytest.raises(CheckpointError, match='a number has no plain type'):
            load_checkpoint_file(saved(tmp_path / 'number.pth', dict(number=number)))


@pytest.mark.parametrize('is_zip', [True, False])
def test_values_come_back(tmp_path, is_zip):
    columns = np.asfortranarray(np.arange(6, dtype='>i2').reshape(2, 3))
    objects = np.array([np.arange(2), 'x', None], dtype=object)
    shared = np.arange(3.0)
    content = dict(
        columns=columns,
        objects=np.asfortranarray(np.array([[objects, 1], [2, 3]], dtype=object)),
        nested=[(dict(a=shared), [shared])],
        args=argparse.Namespace(array=np.array(['ü', 'ab'])),
        kind=np.dtype('>f4'),
        number=np.float32(0.5),
        truth=np.array([True, False]),
        words=np.array([b'a', b'']),
    )
    found = load_checkpoint_file(saved(tmp_path / 'file.pth', content, is_zip))
    assert type(found['columns']) is np.ndarray
    assert found['columns'].flags.f_contiguous
    assert found['columns'].dtype == np.int16  # numpy reads into this machine's byte order
    for key in ('columns', 'truth', 'words'):
        assert np.array_equal(found[key], content[key]), key
        assert found[key].shape == content[key].shape
    inner = found['objects'][0, 0]
    assert type(inner) is type(inner[0]) is np.ndarray
    assert inner[0].tolist() == [0, 1]
    assert inner[1:].tolist() == ['x', None]
    assert found['objects'].tolist()[1] == [2, 3]
    assert type(found['nested'][0][0]['a']) is type(found['nested'][0][1][0]) is np.ndarray
    assert found['nested'][0][1][0].tolist() == [0, 1, 2]
    assert found['args'].array.tolist() == ['ü', 'ab']
    assert found['kind'] == np.dtype('>f4')
    assert found['number'] == content['number']
    assert type(found['number']) is np.float32


def test_classes_that_the_user_allows_do_not_replace_the_check(tmp_path):
    path = saved(tmp_path / 'array.pth', dict(array=array_of(dtype_of('f8', FORGED['flags']))))
    own = [np.dtype, np.ndarray, np.dtypes.Float64DType, argparse.ArgumentParser]
    with torch.serialization.safe_globals(own):
        before = set(torch.serialization.get_safe_globals())
        found = load_checkpoint_file(path)
        assert set(torch.serialization.get_safe_globals()) == before
        assert set(own) <= before
    assert not found['array'].dtype.hasobject
