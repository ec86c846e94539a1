# Copyright (c) addp_mm contributors. Apache-2.0.
"""Data sets hold no Python object for each image: neither in their attributes nor in a pickle."""

import gc
import json
import pickle
import types

import numpy as np
import pytest

from addp_mm.benchmark.made_up_data import KINDS
from addp_mm.datasets import TokenIds
from addp_mm.datasets.listed import broken_images, packed_names
from addp_mm.datasets.listed.broken_images import BrokenImages
from addp_mm.datasets.listed.packed_names import PackedNames, write_names
from addp_mm.datasets.tokens.token_store import TokenWriter

FEW, MANY = 100, 3000
OWN = ('list', 'folder', 'lmdb', 'webdataset', 'ids')


def count_objects(root):
    """Number of Python objects that are reachable from the attributes of an object."""
    seen, waiting = set(), [vars(root)]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(one))
        waiting += gc.get_referents(one)
    return len(seen)


def made_up(kind, folder, count):
    folder.mkdir()
    KINDS[kind].write(folder, count)
    KINDS[kind].open(folder, count)
    return KINDS[kind].open(folder, count)  # as later starts do


@pytest.mark.parametrize('kind', OWN)
def test_neither_objects_nor_pickles_grow_with_the_images(tmp_path, kind):
    few, many = (made_up(kind, tmp_path / str(count), count) for count in (FEW, MANY))
    assert (len(few), len(many)) == (FEW, MANY)
    # a few more shards, and longer numbers
    assert abs(count_objects(many) - count_objects(few)) < 50
    assert len(pickle.dumps(many)) < len(pickle.dumps(few)) + 500


def test_a_list_of_strings_would_be_noticed():
    assert count_objects(types.SimpleNamespace(names=[f'image {k}' for k in range(MANY)])) > MANY


def test_ids_keep_no_names_of_broken_images(tmp_path):
    settings = dict(tokenizer={}, images={}, views={}, shard=dict(index=0, of=1))
    writer = TokenWriter(tmp_path / 'ids', settings, (MANY, 1, 4), 'uint16')
    writer.write(np.zeros((MANY, 1, 4), np.uint16), {k: (f'{k}.jpg', 'cut off') for k in range(1, MANY)})
    writer.save()
    data = TokenIds(tmp_path / 'ids')
    assert len(data) == 1
    assert count_objects(data) < 200


def test_all_names_are_read_in_large_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_names, '_CHUNK', 4)
    for count in (0, 3, 4, 9):
        names = [b'x' * (k % 3) + b'%d' % k for k in range(count)]
        write_names(tmp_path / 'list', names, {})
        stored = PackedNames(tmp_path / 'list')
        assert [*stored] == names == [stored[k] for k in range(count)]


def test_each_line_of_broken_images_is_read_once(tmp_path, monkeypatch):
    """With a read of all lines at each broken image, the time would grow with their square."""
    calls = []
    monkeypatch.setattr(broken_images.json, 'loads', lambda text: calls.append(text) or json.JSONDecoder().decode(text))
    one, other = (BrokenImages(tmp_path / 'broken.txt', 10_000, 0.01) for _ in range(2))
    for k in range(30):
        one.add(f'{k}.jpg', ValueError('cut off'))
        one.add(f'{k}.jpg', ValueError('cut off'))
    assert len(calls) == len(one.read()) == 30
    assert [*other.read().items()] == [(f'{k}.jpg', 'cut off') for k in range(30)]
    # another run clears the record, and writes a longer line
    one.clear()
    other.add('a new and longer name.jpg' * 200, ValueError('empty'))
    assert [*other.read()] == [*one.read()] == ['a new and longer name.jpg' * 200]
    with open(tmp_path / 'broken.txt', 'a') as file:
        file.write('"half a li')
    assert len(one.read()) == 1
    one.clear()
    assert not one.read()
