# Copyright (c) addp_mm contributors. Apache-2.0.
"""Files with the same content are found, whatever their names, and only those."""

import numpy as np
import pytest

from addp_mm.analysis.duplicates import as_json, find_duplicates
from addp_mm.analysis.image_sources import FileSource


def write(folder, contents):
    folder.mkdir()
    paths = []
    for index, content in enumerate(contents):
        (folder / f'{index}.png').write_bytes(content)
        paths.append(str(folder / f'{index}.png'))
    return FileSource(paths)


def bytes_of(seed, count=40_000):
    return np.random.default_rng(seed).bytes(count)


@pytest.mark.parametrize('num_workers', [1, 4])
def test_equal_files_are_found_within_and_between_splits(tmp_path, num_workers):
    start = bytes_of(0)[:-1]  # the same size and beginning as file 0, another end
    train = write(tmp_path / 'train', [bytes_of(0), bytes_of(1), start + b'x', bytes_of(1), bytes_of(2), bytes_of(1)])
    val = write(tmp_path / 'val', [bytes_of(3), bytes_of(1), start + b'y', bytes_of(2), bytes_of(2, 39_999)])
    found = find_duplicates({'train': [train], 'val': [val]}, num_workers)
    assert found.compared == 11
    assert found.within == {'train': 2, 'val': 0}
    assert found.between == {('train', 'val'): 2}
    assert sorted(map(len, found.groups)) == [2, 4]
    names = {name for group in found.groups for _, name in group}
    assert names == {train.name(index) for index in (1, 3, 4, 5)} | {val.name(index) for index in (1, 3)}
    assert as_json(found)['between'] == {'val in train': 2}


def test_files_without_an_equal_one(tmp_path):
    found = find_duplicates({'train': [write(tmp_path / 'a', [bytes_of(0), bytes_of(1), b'', bytes_of(0, 3)])]})
    assert (found.within, found.between, found.groups, found.unreadable) == ({'train': 0}, {}, [], 0)
    assert find_duplicates({}).compared == 0
    assert as_json(None) is None


def test_a_missing_file_is_counted_and_does_not_stop_the_search(tmp_path):
    source = write(tmp_path / 'a', [bytes_of(0), bytes_of(0)])
    missing = FileSource([*source.paths, str(tmp_path / 'missing.png')])
    found = find_duplicates({'train': [missing]})
    assert (found.unreadable, found.within) == (1, {'train': 1})


def test_several_datasets_of_a_split(tmp_path):
    first, second = write(tmp_path / 'a', [bytes_of(0)]), write(tmp_path / 'b', [bytes_of(0), bytes_of(1)])
    found = find_duplicates({'train': [first, second], 'test': [first]})
    assert found.within == {'train': 1, 'test': 0}
    assert found.between == {('train', 'test'): 1}
