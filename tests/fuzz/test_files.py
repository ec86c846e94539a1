# Copyright (c) addp_mm contributors. Apache-2.0.
"""Lists of names, files that are written atomically, and the positions of samplers."""

from itertools import islice

import pytest
from helpers.strategies import seeds
from hypothesis import given
from hypothesis import strategies as st

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.packed_names import PackedNames, names_fingerprint, write_names
from addp_mm.datasets.samplers.resumable_sampler import ResumableEpochSampler, ResumableInfiniteSampler
from addp_mm.datasets.samplers.seeded_batches import SeededBatches

names = st.lists(st.binary(max_size=6), max_size=20)


@given(names, st.dictionaries(st.sampled_from('abc'), st.none() | st.integers() | st.booleans()))
def test_packed_names_come_back(tmp_path, given_names, about):
    path = tmp_path / 'list.names'
    write_names(path, given_names, about)
    found = PackedNames(path)
    assert list(found) == given_names == [found[index] for index in range(len(found))]
    assert found.about == about
    assert found.fingerprint == names_fingerprint(name.decode('utf-8', 'surrogateescape') for name in given_names)


@given(names, st.data())
def test_a_damaged_list_is_refused_or_gives_as_many_names(tmp_path, given_names, data):
    path = tmp_path / 'list.names'
    write_names(path, given_names, {})
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([None, at]))])
    try:
        found = PackedNames(path)
        assert list(found) == [found[index] for index in range(len(found))]
    except DatasetError:
        return
    assert len(found) == len(given_names)


class StrangeError(BaseException):
    """Not an Exception, such as KeyboardInterrupt."""


@given(
    st.sampled_from([None, OSError(28, 'No space left on device'), ValueError(), KeyboardInterrupt(), StrangeError()]),
    st.none() | st.binary(max_size=4),
    st.sampled_from(['write', 'remove', 'nothing']),
)
def test_an_atomic_file_is_whole_or_as_before(tmp_path_factory, error, before, action):
    folder = tmp_path_factory.mktemp('atomic')
    path = folder / 'file'
    if before is not None:
        path.write_bytes(before)
    try:
        with atomic_path(path) as partial:
            if action == 'remove':
                partial.unlink()
            elif action == 'write':
                partial.write_bytes(b'new')
            if error is not None:
                raise error
        is_new = True
    except BaseException:  # whatever it is
        is_new = False
    assert is_new == (error is None and action != 'remove')
    assert [file.name for file in folder.iterdir()] == (['file'] if is_new or before is not None else [])
    if is_new or before is not None:
        assert path.read_bytes() == ((b'new' if action == 'write' else b'') if is_new else before)


@given(st.integers(1, 9), st.booleans(), seeds, st.integers(0, 40))
def test_an_endless_sampler_that_starts_later_goes_on(size, shuffle, seed, skipped):
    def indices(start):
        sampler = ResumableInfiniteSampler(range(size), shuffle, seed)
        sampler.start_at(start)
        return [(int(index), index.seed, index.position) for index in islice(sampler, 60 - start)]

    whole = indices(0)
    assert indices(skipped) == whole[skipped:]
    assert [position for *_, position in whole] == list(range(60))
    for first in range(0, 60 - size, size):
        assert sorted(index for index, *_ in whole[first : first + size]) == list(range(size))


class Batches:
    """A batch sampler around a sampler of epochs."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self):
        source = iter(self.sampler)
        while batch := list(islice(source, self.batch_size)):
            yield batch

    def __len__(self):
        return -(-len(self.sampler) // self.batch_size)


@given(st.integers(1, 9), st.integers(1, 4), seeds, st.integers(0, 12), st.booleans())
def test_skipped_batches_are_those_that_would_be_read(size, batch_size, seed, skipped, endless):
    def batches(number):
        found = SeededBatches(Batches(ResumableEpochSampler(range(size), seed=seed), batch_size), seed, endless)
        found.start_at(0, number)
        return [(list(map(int, one.indices)), one.seed, one.position) for one in islice(found, 20 - number)]

    assert batches(skipped) == batches(0)[skipped:]


def test_a_list_whose_ends_fall_is_refused(tmp_path):
    path = tmp_path / 'list.names'
    write_names(path, [b'abcdefgh', b'', b'x'], {})
    content = path.read_bytes()
    at = 16  # nine bytes of names and seven zeros
    assert content[at : at + 16] == (8).to_bytes(8, 'little') * 2
    path.write_bytes(content[:at] + (9).to_bytes(8, 'little') + (3).to_bytes(8, 'little') + content[at + 16 :])
    found = PackedNames(path)
    with pytest.raises(DatasetError, match='is damaged'):
        found[1]
    with pytest.raises(DatasetError, match='is damaged'):
        list(found)
