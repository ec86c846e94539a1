# Copyright (c) addp_mm contributors. Apache-2.0.
import os
import pickle
import tracemalloc

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from addp_mm.datasets import DatasetError, ImageFiles, TooManyBrokenImagesError
from addp_mm.datasets.listed.broken_images import num_allowed
from addp_mm.datasets.listed.file_scan import find_images
from addp_mm.datasets.listed.packed_names import PackedNames, names_fingerprint, write_names
from addp_mm.registry import DATASETS

LOAD = [dict(type='addp_mm.LoadImage')]


def fill(folder, names, value=0):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (4, 3), value + number).save(path)


@pytest.fixture
def images(tmp_path):
    root = tmp_path / 'images'
    fill(root, ['b.png', 'a/2.png', 'a/1.PNG', 'a.png', 'c/d/e.bmp'])
    for name in ('notes.txt', '.hidden.png', '.cache/x.png', '__MACOSX/a.png'):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b'x')
    return root


def listed(root, **options):
    data = ImageFiles(root, **options)
    return [os.path.relpath(data[index]['img_path'], root) for index in range(len(data))]


def test_images_are_listed_in_the_order_of_their_paths(images, tmp_path):
    index = tmp_path / 'list'
    assert listed(images, index_file=index) == ['a.png', 'a/1.PNG', 'a/2.png', 'b.png', 'c/d/e.bmp']
    data = DATASETS.build(dict(type='addp_mm.ImageFiles', root=str(images), index_file=index, pipeline=LOAD))
    # the list of an earlier dataset was used, and the path decides which image it is
    assert data[3]['img'].max() == 0
    assert data[0]['img'].max() == 3
    assert data.name(1) == 'a/1.PNG'
    assert data.fingerprint == names_fingerprint(data.name(k) for k in range(5))
    with pytest.raises(IndexError, match='5 images, so that image 5 does not exist'):
        data[5]


def test_links_are_followed_and_loops_end(images, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr('addp_mm.datasets.listed.file_scan.print_log', lambda text, *_: warnings.append(text))
    elsewhere = tmp_path / 'elsewhere'
    fill(elsewhere, ['far.png'])
    (elsewhere / 'back').symlink_to(images)
    (images / 'link').symlink_to(elsewhere)
    (images / 'a/up').symlink_to(images)
    (images / 'd').symlink_to(images / 'c')
    (images / 'lost.png').symlink_to(tmp_path / 'nowhere')
    (images / 'b2.png').symlink_to(images / 'b.png')
    assert [path.decode() for path in find_images(images, ['.png', '.bmp'])] == [
        'a.png',
        'a/1.PNG',
        'a/2.png',
        'b.png',
        'b2.png',
        'c/d/e.bmp',
        'link/far.png',
    ]
    assert [f'{images}: 1 links' in text for text in warnings] == [True]


def test_a_folder_that_cannot_be_read_is_skipped(images, tmp_path, monkeypatch):
    scandir, warnings = os.scandir, []

    def forbid(path):
        if path == os.fsencode(images / 'lost+found'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    (images / 'lost+found').mkdir()
    monkeypatch.setattr('addp_mm.datasets.listed.file_scan.os.scandir', forbid)
    monkeypatch.setattr('addp_mm.datasets.listed.file_scan.print_log', lambda text, *_: warnings.append(text))
    assert len(listed(images, index_file=tmp_path / 'list')) == 5
    assert len(warnings) == 1
    assert f'{images}/lost+found cannot be read' in warnings[0]


def test_a_changed_folder_is_noticed(images, tmp_path):
    index = tmp_path / 'list'
    assert len(listed(images, index_file=index)) == 5
    fill(images, ['c/d/new.png'])
    with pytest.raises(DatasetError, match="has changed: c/d/new.png was added.*changed='rescan'"):
        ImageFiles(images, index_file=index)
    assert len(listed(images, index_file=index, changed='keep')) == 5
    assert 'c/d/new.png' in listed(images, index_file=index, changed='rescan')
    assert len(listed(images, index_file=index)) == 6
    with pytest.raises(DatasetError, match='extensions changed'):
        ImageFiles(images, index_file=index, extensions=['.png'])
    with pytest.raises(DatasetError, match='folder changed'):
        ImageFiles(images / 'a', index_file=index)


def test_other_files_do_not_change_a_folder(images, tmp_path):
    index = tmp_path / 'list'
    before = [*ImageFiles(images, index_file=index).names]
    (images / 'c/d/Thumbs.db').write_bytes(b'x')
    assert [*ImageFiles(images, index_file=index).names] == before
    (images / 'b.png').unlink()
    with pytest.raises(DatasetError, match=r'has changed: b\.png was added or removed'):
        ImageFiles(images, index_file=index)


def test_splits_share_all_images(images, tmp_path):
    index = tmp_path / 'list'
    train, val = (listed(images, index_file=index, split=split, val_every=3) for split in ('train', 'val'))
    assert val == ['a.png', 'b.png']
    assert sorted(train + val) == listed(images, index_file=index)


def test_the_error_without_images_names_the_searched_extensions(tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(DatasetError, match=r'has no images. The search was for names that end in .*\.png'):
        ImageFiles(tmp_path / 'images', index_file=tmp_path / 'list')
    with pytest.raises(DatasetError, match='does not exist.*Check the path given'):
        ImageFiles(tmp_path / 'imags', index_file=tmp_path / 'list')


def test_damaged_lists_are_refused(images, tmp_path):
    index = tmp_path / 'list'
    listed(images, index_file=index)
    content = index.read_bytes()
    for damaged in (content[:-1], content[:20], content[20:], b'', b'something else'):
        index.write_bytes(damaged)
        with pytest.raises(DatasetError, match='Delete it'):
            ImageFiles(images, index_file=index)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    count = 200_000
    names = (
        f'folder-{number % 977:04d}/a-rather-long-name-of-an-image-{number:08d}.jpeg'.encode()
        for number in range(count)
    )
    tracemalloc.start()
    write_names(tmp_path / 'list', names, {})
    stored = PackedNames(tmp_path / 'list')
    picked = [stored[index] for index in range(0, count, 1000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(stored) == count
    assert picked[7] == b'folder-0161/a-rather-long-name-of-an-image-00007000.jpeg'
    # as Python strings they take 21 MB
    assert peak < 3e6
    assert len(pickle.dumps(stored)) < 1000
    assert pickle.loads(pickle.dumps(stored))[7000] == picked[7]


def test_paths_are_sorted(tmp_path):
    """``!`` sorts before ``/``, and ``0`` after it."""
    for folder in ('a', 'a!', 'a0', 'b/c', 'b'):
        fill(tmp_path, [f'{folder}/{number}.png' for number in range(3)] + [f'{folder}.png'])
    found = [*find_images(tmp_path, ['.png'])]
    assert found == sorted(found)
    assert len(found) == 20


def test_links_to_hidden_folders_are_followed_and_links_to_themselves_skipped(tmp_path):
    fill(tmp_path, ['.store/x.png', 'a.png'])
    (tmp_path / 'shown').symlink_to(tmp_path / '.store')
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    assert [*find_images(tmp_path, ['.png'])] == [b'a.png', b'shown/x.png']


@pytest.fixture
def allow(monkeypatch):
    """Set the number of broken images that are allowed in addition to the share."""
    return lambda count: monkeypatch.setattr('addp_mm.datasets.listed.broken_images.BROKEN_ALLOWANCE', count)


@pytest.fixture
def with_broken(tmp_path):
    """40 images, of which three are broken."""
    root = tmp_path / 'images'
    fill(root, [f'{number:02d}.png' for number in range(40)])
    (root / '05.png').write_bytes(b'no image')
    (root / '17.png').write_bytes((root / '17.png').read_bytes()[:40])
    (root / '23.png').write_bytes(b'')
    return root


def keep_image(batch):
    return [(os.path.basename(results['img_path']), int(results['img'][0, 0, 0])) for results in batch]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_broken_images_are_recorded_once_and_replaced_by_the_same_image(with_broken, tmp_path, num_workers, allow):
    allow(3)
    data = ImageFiles(with_broken, LOAD, index_file=tmp_path / 'list')
    passes = [
        [pair for batch in DataLoader(data, 4, num_workers=num_workers, collate_fn=keep_image) for pair in batch]
        for _ in range(2)
    ]
    assert passes[0] == passes[1]
    assert len(passes[0]) == 40
    assert all(name == f'{value:02d}.png' for name, value in passes[0])
    assert not {'05.png', '17.png', '23.png'} & {name for name, _ in passes[0]}
    assert sorted(os.path.basename(name) for name in data.broken.read()) == ['05.png', '17.png', '23.png']
    text = (tmp_path / 'broken_images_list.txt').read_text()
    assert len(set(text.splitlines())) == 3
    assert 'not an image' in text
    # another run counts from zero: images may have been repaired
    assert not ImageFiles(with_broken, LOAD, index_file=tmp_path / 'list').broken.read()


@pytest.mark.parametrize('num_workers', [0, 2])
def test_one_broken_image_too_many_stops_with_the_list(with_broken, tmp_path, num_workers, allow):
    allow(0)
    data = ImageFiles(with_broken, LOAD, index_file=tmp_path / 'list', max_broken_share=0.05)
    assert data.broken.allowed == 2
    with pytest.raises(
        TooManyBrokenImagesError, match='3 images are broken, 2 are allowed.*05.png.*broken_images_list.txt'
    ):
        list(DataLoader(data, 4, num_workers=num_workers, collate_fn=keep_image))


def test_after_too_many_broken_images_they_may_be_removed_or_allowed(with_broken, tmp_path, allow):
    allow(1)
    options = dict(index_file=tmp_path / 'list')
    data = ImageFiles(with_broken, LOAD, max_broken_share=0, **options)
    with pytest.raises(
        TooManyBrokenImagesError, match=r'--images-changed keep.*max_broken_share\) of 0\.025\.'
    ) as raised:
        [data[k] for k in range(20)]
    share = float(str(raised.value).rpartition(' of ')[2].rstrip('.'))
    assert len([ImageFiles(with_broken, LOAD, max_broken_share=share, **options)[k] for k in range(20)]) == 20
    for name in ('05.png', '17.png', '23.png'):
        (with_broken / name).unlink()
    data = ImageFiles(with_broken, LOAD, max_broken_share=0, changed='keep', **options)
    assert len(keep_image([data[k] for k in range(40)])) == 40
    assert not data.broken.read()
    for path in with_broken.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="broken or missing.*changed='rescan'"):
        data[0]


def test_shares_are_not_lost_to_rounding(allow):
    allow(0)
    assert [num_allowed(share, 100) for share in (0.28, 0.29, 0.57, 0.58)] == [28, 29, 57, 58]


def test_faults_of_the_program_and_the_machine_are_not_broken_images(with_broken, tmp_path, allow):
    allow(1)

    def fail(error):
        def transform(results):
            raise error

        return transform

    for error in (KeyError('img'), ValueError('a bug'), OSError(24, 'Too many open files')):
        data = ImageFiles(with_broken, [fail(error)], index_file=tmp_path / 'list')
        with pytest.raises(type(error)):
            data[0]
    data = ImageFiles(with_broken, [fail(FileNotFoundError(2, 'gone'))], index_file=tmp_path / 'list')
    with pytest.raises(TooManyBrokenImagesError):
        data[0]
    assert len(data.broken.read()) == 2


def test_a_dataset_with_repeated_replacements_ends(tmp_path, allow):
    allow(5)
    fill(tmp_path / 'images', ['a.png'])
    (tmp_path / 'images/a.png').write_bytes(b'x')
    data = ImageFiles(tmp_path / 'images', LOAD, index_file=tmp_path / 'list')
    with pytest.raises(DatasetError, match='were broken'):
        data[0]


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b'caf\xe9.png')
    fill(tmp_path / 'images', [name, 'ünï.png'])
    data = ImageFiles(tmp_path / 'images', LOAD, index_file=tmp_path / 'list')
    assert [data[index]['img'].shape for index in range(2)] == [(3, 4, 3)] * 2
    (tmp_path / 'images' / name).write_bytes(b'x')
    assert data[0]['img'].shape == (3, 4, 3)
    assert [os.path.basename(key) for key in data.broken.read()] == [name]


def test_a_training_keeps_list_and_broken_images_in_its_work_dir(with_broken, tmp_path):
    data = ImageFiles(with_broken, LOAD, work_dir=tmp_path / 'work')
    [data[k] for k in range(6)]
    (index,) = (tmp_path / 'work').glob('images_images_*.index')
    (broken,) = (tmp_path / 'work').glob('broken_images_images_*.txt')
    assert '05.png' in broken.read_text()
    again = ImageFiles(with_broken, LOAD, index_file=index, split='val', work_dir=tmp_path / 'other')
    assert again.broken.path == tmp_path / f'other/{broken.stem}_val.txt'


def test_empty_names_are_kept(tmp_path):
    write_names(tmp_path / 'list', [b'', b'ab', b''], dict(a=[1]))
    stored = PackedNames(tmp_path / 'list')
    assert list(stored) == [b'', b'ab', b'']
    assert stored.about == dict(a=[1])
