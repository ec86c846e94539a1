# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images in LMDB databases and in the tar shards of a WebDataset."""

import gzip
import io
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from addp_mm.datasets import DatasetError, LMDBImages, WebDatasetImages
from addp_mm.registry import DATASETS

LOAD = [dict(type='addp_mm.LoadImage')]


def png(value):
    stream = io.BytesIO()
    Image.new('L', (4, 3), value).save(stream, 'PNG')
    return stream.getvalue()


def write_shard(path, members, **options):
    with tarfile.open(path, 'w', **options) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """Three shards of four images of value 0 to 11, with labels; the third in pax format."""
    folder = tmp_path / 'shards'
    folder.mkdir()
    for shard in range(3):
        members = []
        for k in range(4):
            key = f'{"long/" * 30}{4 * shard + k:03d}'
            members += [(f'{key}.png', png(4 * shard + k)), (f'{key}.cls', b'7'), (f'{key}.json', b'{}')]
        options = dict(format=tarfile.PAX_FORMAT) if shard == 2 else {}
        write_shard(folder / f'train-{shard:03d}.tar', members, **options)
    return folder


def values(batch):
    return [int(results['img'][0, 0, 0]) for results in batch]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_images_of_all_shards_by_number(shards, tmp_path, num_workers):
    data = DATASETS.build(
        dict(type='addp_mm.WebDatasetImages', shards=str(shards), index_file=tmp_path / 'list', pipeline=LOAD)
    )
    assert len(data) == 12
    assert data.name(5).endswith('/005.png')
    assert data[5]['img_path'] == f'{shards}/train-001.tar:{data.name(5)}'
    loaded = list(DataLoader(data, 5, num_workers=num_workers, collate_fn=values))
    assert sum(loaded, []) == [*range(12)]
    assert values([data[11], data[0]]) == [11, 0]
    assert len(pickle.dumps(data)) < 5000


def test_patterns_and_single_shards(shards, tmp_path):
    some = WebDatasetImages(shards / 'train-00[02].tar', LOAD, index_file=tmp_path / 'some')
    assert values(some[k] for k in range(8)) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len(WebDatasetImages(shards / 'train-001.tar', index_file=tmp_path / 'one')) == 4
    with pytest.raises(DatasetError, match='there are no tar files'):
        WebDatasetImages(shards / 'val-*.tar')


def test_a_folder_with_brackets_in_its_name(shards, tmp_path):
    folder = tmp_path / 'shards [x]'
    shutil.copytree(shards, folder)
    assert len(WebDatasetImages(folder, index_file=tmp_path / 'brackets')) == len(WebDatasetImages(shards))


def test_changed_shards_are_noticed(shards, tmp_path):
    index = tmp_path / 'list'
    assert len(WebDatasetImages(shards, index_file=index)) == 12
    write_shard(shards / 'train-003.tar', [('a.png', png(99))])
    with pytest.raises(DatasetError, match='shards changed since'):
        WebDatasetImages(shards, index_file=index)
    assert len(WebDatasetImages(shards, index_file=index, changed='rescan')) == 13
    os.remove(shards / 'train-003.tar')
    with pytest.raises(DatasetError, match='shards changed since'):
        WebDatasetImages(shards, index_file=index)


def test_a_kept_list_reads_the_shards_that_were_listed(shards, tmp_path):
    index = tmp_path / 'list'
    before = WebDatasetImages(shards, LOAD, index_file=index)
    assert values(before[k] for k in range(12)) == [*range(12)]
    write_shard(shards / 'a.tar', [('a.png', png(99))])
    data = WebDatasetImages(shards, LOAD, index_file=index, changed='keep')
    assert values(data[k] for k in range(12)) == [*range(12)]


@pytest.mark.parametrize('changed', ['error', 'keep'])
def test_images_of_a_missing_shard_are_broken_unless_the_list_is_kept(shards, tmp_path, changed):
    data = WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list', changed=changed)
    os.remove(shards / 'train-001.tar')
    assert set(values([data[4], data[5]])) <= {0, 1, 2, 3, 8, 9, 10, 11}
    met = data.broken.read()
    assert (not met) == (changed == 'keep')
    assert all('train-001.tar' in reason for reason in met.values())


def test_broken_members_are_named(shards, tmp_path):
    write_shard(shards / 'train-000.tar', [('a.png', b'no image'), ('b.png', png(50))])
    data = WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list')
    assert data[0]['img'].shape == (3, 4, 3)
    assert list(data.broken.read()) == [f'{shards}/train-000.tar:a.png']


@pytest.mark.parametrize('how', ['gz', 'cut', 'none'])
def test_compressed_and_damaged_shards_are_refused(shards, tmp_path, how):
    path = shards / 'train-001.tar'
    if how == 'gz':
        with tarfile.open(path, 'w:gz') as archive:
            archive.addfile(tarfile.TarInfo('a.png'), io.BytesIO())
    else:
        path.write_bytes(path.read_bytes()[:700] if how == 'cut' else b'no tar at all' * 100)
    with pytest.raises(DatasetError, match='train-001.tar cannot be read as an uncompressed tar file'):
        WebDatasetImages(shards, index_file=tmp_path / 'list')
    assert not (tmp_path / 'list').exists()


@pytest.mark.parametrize('given', ['shards', 'shards/a.tar.gz', 'shards/*.gz'])
def test_the_error_for_compressed_shards_has_a_remedy(tmp_path, given):
    (tmp_path / 'shards').mkdir()
    write_shard(tmp_path / 'shards/plain', [('a.png', png(1))])
    (tmp_path / 'shards/a.tar.gz').write_bytes(gzip.compress((tmp_path / 'shards/plain').read_bytes()))
    with pytest.raises(DatasetError, match=r'uncompressed.*[Dd]ecompress'):
        WebDatasetImages(tmp_path / given, index_file=tmp_path / 'list')


@pytest.fixture
def database(tmp_path):
    lmdb = pytest.importorskip('lmdb')
    path = tmp_path / 'images.lmdb'
    with lmdb.open(str(path), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for value in range(10):
            transaction.put(b'%03d' % value, png(value))
        transaction.put(b'__len__', pickle.dumps(10))
    return path


@pytest.mark.parametrize('num_workers', [0, 2])
def test_images_of_a_database(database, tmp_path, num_workers):
    data = DATASETS.build(
        dict(type='addp_mm.LMDBImages', path=str(database), index_file=tmp_path / 'list', pipeline=LOAD)
    )
    assert len(data) == 10
    assert data[4]['img_path'] == f'{database}:004'
    # the database is open in this process, also in another dataset, when the workers fork
    val = LMDBImages(database, LOAD, index_file=tmp_path / 'list', split='val', val_every=5)
    assert values([val[1]]) == [5]
    assert sum(DataLoader(data, 3, num_workers=num_workers, collate_fn=values), []) == [*range(10)]
    assert values([pickle.loads(pickle.dumps(data))[9]]) == [9]


def test_a_changed_database_is_noticed(database, tmp_path):
    import lmdb

    index = tmp_path / 'list'
    assert len(LMDBImages(database, index_file=index)) == 10
    with lmdb.open(str(database), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        transaction.put(b'new', b'no image')
    with pytest.raises(DatasetError, match='images.lmdb: entries, transaction changed since'):
        LMDBImages(database, index_file=index)
    data = LMDBImages(database, LOAD, index_file=index, changed='rescan')
    assert data[10]['img'].shape == (3, 4, 3)
    assert list(data.broken.read()) == [f'{database}:new']


def test_missing_keys_are_not_broken_if_the_list_is_kept(database, tmp_path):
    import lmdb

    index = tmp_path / 'list'
    LMDBImages(database, index_file=index)
    with lmdb.open(str(database), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b'003')
    data = LMDBImages(database, LOAD, index_file=index, changed='keep')
    assert values([data[3]]) != [3]
    assert not data.broken.read()


def test_without_lmdb_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr('addp_mm.datasets.listed.lmdb_images.lmdb', None)
    with pytest.raises(ImportError, match=r'pip install "addp_mm\[data\]"'):
        LMDBImages(tmp_path)


def test_a_path_that_is_not_a_database(tmp_path):
    pytest.importorskip('lmdb')
    with pytest.raises(DatasetError, match='this database does not exist'):
        LMDBImages(tmp_path / 'nowhere')
    (tmp_path / 'file').write_bytes(np.zeros(9000, np.uint8).tobytes())
    with pytest.raises(DatasetError, match='cannot be opened as an LMDB database'):
        LMDBImages(tmp_path / 'file', index_file=tmp_path / 'list')


@pytest.fixture
def warned(monkeypatch):
    """Lines of the log about shards."""
    words = []
    monkeypatch.setattr('addp_mm.datasets.listed.tar_members.print_log', lambda text, *_: words.append(text))
    return words


def cut(path, at):
    path.write_bytes(path.read_bytes()[:at])


@pytest.mark.parametrize('where', ['in the data', 'in the next header', 'after the data', 'without the mark'])
def test_the_whole_members_of_a_shard_that_was_cut_are_used(shards, tmp_path, warned, where):
    path = shards / 'train-001.tar'
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        second, last = members[3], members[-1]  # 005.png, 007.json
    at = dict(zip(['in the data', 'in the next header', 'after the data'], [20, 700, 512], strict=True))
    cut(path, last.offset_data + 512 if where == 'without the mark' else second.offset_data + at[where])
    data = WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list')
    whole = {'in the data': 1, 'in the next header': 2, 'after the data': 2, 'without the mark': 4}[where]
    assert len(data) == 8 + whole + (where == 'in the data')
    assert values(data[k] for k in range(4, 4 + whole)) == [4, 5, 6, 7][:whole]
    assert [words.startswith(f'{path} is damaged or cut short: ') for words in warned] == [True]
    if where == 'in the data':
        assert 'its last member ends at byte' in warned[0]
        assert values([data[5]])[0] in {0, 1, 2, 3, 4, 8, 9, 10, 11}
        ((name, reason),) = data.broken.read().items()
        assert name.endswith('train-001.tar:' + data.name(5))
        assert 'the shard is cut short: it ends after' in reason


def test_the_rest_after_a_damaged_header_is_named(shards, tmp_path, warned):
    path = shards / 'train-001.tar'
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        third = archive.getmembers()[6]
    content[third.offset : third.offset + 512] = b'\xff' * 512
    path.write_bytes(content)
    data = WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list')
    assert len(data) == 8 + 2
    assert f'after 6 members, {len(content) - third.offset:,} of {len(content):,} bytes' in warned[0]


def test_whole_shards_cause_no_warning(shards, tmp_path, warned):
    WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list')
    assert not warned


def test_members_of_a_shard_that_is_cut_later_are_broken_images(shards, tmp_path):
    data = WebDatasetImages(shards, LOAD, index_file=tmp_path / 'list', max_broken_share=1)
    cut(shards / 'train-001.tar', 6000)
    assert set(values(data[k] for k in range(12))) <= {0, 1, 2, 3, 4, 5, 8, 9, 10, 11}
    assert all('the shard is cut short: it ends after 6,000 bytes' in reason for reason in data.broken.read().values())
    assert any(name.endswith('/007.png') for name in data.broken.read())


@pytest.mark.parametrize('listed', [False, True])
def test_a_database_that_was_cut_is_refused_before_a_page_is_read(database, tmp_path, listed):
    if listed:
        LMDBImages(database, index_file=tmp_path / 'list')
    file = database / 'data.mdb'
    cut(file, file.stat().st_size - 4096)
    with pytest.raises(
        DatasetError, match=r'data.mdb is cut short: it has [\d,]+ of [\d,]+ bytes \(\d+\.\d% are missing'
    ):
        LMDBImages(database, LOAD, index_file=tmp_path / 'list')


@pytest.mark.parametrize('size', [2**40, 2**62, 2**75])
def test_a_header_that_claims_more_than_the_file_is_a_broken_image(tmp_path, warned, size):
    liar = tarfile.TarInfo('liar.png')
    liar.size = size
    write_shard(tmp_path / 'a.tar', [('good.png', png(1))])
    with tarfile.open(tmp_path / 'a.tar') as archive:
        end = archive.getmembers()[-1].offset_data + 512
    whole = (tmp_path / 'a.tar').read_bytes()[:end]
    (tmp_path / 'a.tar').write_bytes(whole + liar.tobuf(tarfile.GNU_FORMAT) + bytes(512))
    data = WebDatasetImages(tmp_path / 'a.tar', LOAD, index_file=tmp_path / 'list')
    assert [data.name(index) for index in range(len(data))] == ['good.png', 'liar.png']
    assert values([data[1]]) == [1]  # the other image, in its place
    assert 'the shard is cut short' in next(iter(data.broken.read().values()))
    assert len(warned) == 1
