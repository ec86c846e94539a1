# Copyright (c) addp_mm contributors. Apache-2.0.
"""Broken samples in a real data loader: replaced by the same others, named and counted."""

import copy
import multiprocessing
import os
import pickle
import re
import signal
import time

import cv2
import pytest
from helpers.faulty_data import COUNT, DieAt, Draw, Scenes, break_scenes, loader, read, watched, write_scenes
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import ConcatDataset
from torch.utils.data import DataLoader, Subset

from addp_mm.datasets import DatasetError, TooManyBrokenImagesError
from addp_mm.datasets.faults.worker_faults import WorkerError, named_worker_faults

# its workers get everything pickled, as with spawn, and the packages are imported once for all
multiprocessing.set_forkserver_preload(['helpers.faulty_data'])
PICKLED = pytest.param(2, 'forkserver', marks=pytest.mark.slow)


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / 'scenes')


@pytest.fixture(scope='module')
def substitutes(tmp_path_factory):
    """What a loader without workers reads, with a fault of each kind."""
    folder = tmp_path_factory.mktemp('faults')
    data, broken = write_scenes(folder / 'scenes'), folder / 'broken.txt'
    reasons = break_scenes(data)
    return data, reasons, read(loader(watched(Scenes(data, more=[Draw()]), broken, 0), 0))


def test_broken_samples_are_replaced_by_whole_ones(substitutes):
    _, reasons, samples = substitutes
    assert len(samples) == COUNT
    values = [image for image, _, _ in samples]
    assert [image for k, image in enumerate(values) if k not in reasons] == [
        k for k in range(COUNT) if k not in reasons
    ]
    assert not {values[k] for k in reasons} & set(reasons)
    assert all(image == label for image, label, _ in samples)
    assert len({drawn for _, _, drawn in samples}) == COUNT


@pytest.mark.parametrize('num_workers, method', [(2, 'fork'), (4, 'fork'), PICKLED])
def test_workers_use_the_same_substitutes(substitutes, tmp_path, num_workers, method):
    data, reasons, expected = substitutes
    dataset = watched(Scenes(data, more=[Draw()]), tmp_path / 'broken.txt', num_workers)
    assert read(loader(dataset, num_workers, method, timeout=120)) == expected
    found = dataset.broken.read()
    assert len(found) == len(reasons)
    for number, words in reasons.items():
        (reason,) = [text for name, text in found.items() if name.endswith(f'/{number:02d}.png')]
        assert words in reason


def test_the_stock_loader_gives_the_same_substitutes(substitutes, tmp_path):
    data, _, expected = substitutes  # read with our loader
    dataset = watched(Scenes(data, LoadImageFromFile, [Draw()]), tmp_path / 'broken.txt', 0)
    images = [image for image, _, _ in read(loader(dataset, 0))]
    # OpenCV reads what there is of a truncated image
    assert [image for k, image in enumerate(images) if k != 4] == [
        image for k, (image, _, _) in enumerate(expected) if k != 4
    ]


def test_above_the_share_the_training_stops_with_the_list(substitutes, tmp_path, monkeypatch):
    data, _, _ = substitutes
    monkeypatch.setattr('addp_mm.datasets.listed.broken_images.BROKEN_ALLOWANCE', 2)
    dataset = watched(Scenes(data), tmp_path / 'broken.txt', 2, share=0)
    with pytest.raises(TooManyBrokenImagesError) as info, named_worker_faults():
        read(loader(dataset, 2, 'fork', timeout=120))
    text = str(info.value)
    # the workers may have found more at the same time
    assert re.match('[345] samples are broken, 2 are allowed: /', text)
    assert 'Traceback' not in text
    assert text.count('.png (') >= 3
    assert re.search(r'Allow 0\.\d+\.$', text)


def test_other_data_are_not_replaced(substitutes):
    data, _, _ = substitutes
    dataset = watched(Scenes(data), None, 0)
    assert collate_first(dataset[0]) == 0
    with pytest.raises(DatasetError, match=r'01\.png.* not of the training data'):
        dataset[1]
    with pytest.raises(DatasetError, match='map_07.png: cannot be read as an image'):
        dataset[7]


def collate_first(sample):
    return int(sample['img'][0, 0, 0])


class Raises:
    """A transform with a mistake in it."""

    def __init__(self, error):
        self.error = error

    def __call__(self, results):
        raise self.error


@pytest.mark.parametrize(
    'error',
    [KeyError('img_shpae'), TypeError('no'), AttributeError('no'), AssertionError('failed'), ValueError('no')]
    + [cv2.error('no'), RuntimeError('no'), MemoryError(), OSError(24, 'Too many open files')],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize('path', ['broken.txt', None])
def test_errors_of_the_program_stay_as_they_are(scenes, tmp_path, error, path):
    dataset = watched(Scenes(scenes, more=[Raises(error)]), path and tmp_path / path, 0)
    with pytest.raises(type(error)) as info:
        dataset[3]
    assert info.value is error
    assert path is None or not dataset.broken.read()


def test_it_stands_for_the_other_dataset(scenes, tmp_path):
    inner = Scenes(scenes)
    dataset = watched(inner, tmp_path / 'broken.txt', 0)
    assert len(dataset) == COUNT
    assert dataset.metainfo == inner.metainfo
    assert dataset.get_data_info(3)['sample_idx'] == 3
    dataset.pipeline = 'another'  # as a hook does that changes the augmentation
    assert inner.pipeline == 'another'
    assert not hasattr(dataset, '__getitems__')
    for twin in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert len(twin) == COUNT
        assert twin.get_data_info(2)['img_path'] == inner.get_data_info(2)['img_path']


def test_datasets_around_others(substitutes, tmp_path):
    data, reasons, _ = substitutes
    both = watched(ConcatDataset([Scenes(data), Scenes(data)]), tmp_path / 'both.txt', 0)
    assert collate_first(both[COUNT + 2]) == 2
    assert collate_first(both[COUNT + 9]) not in reasons
    assert [name.rpartition('/')[2] for name in both.broken.read()][:1] == ['09.png']
    part = watched(Subset(Scenes(data), range(10, 20)), tmp_path / 'part.txt', 0)
    assert collate_first(part[5]) not in reasons  # 15


@pytest.mark.parametrize('num_workers, method', [(2, 'fork'), pytest.param(1, 'spawn', marks=pytest.mark.slow)])
def test_a_worker_that_dies_names_its_sample(scenes, tmp_path, num_workers, method):
    dataset = watched(Scenes(scenes, more=[DieAt('05.png', signal.SIGKILL)]), tmp_path / 'broken.txt', num_workers)
    with pytest.raises(WorkerError) as info, named_worker_faults():
        read(loader(dataset, num_workers, method, timeout=120))
    assert f'was ended by SIGKILL: it was reading {scenes}/05.png. Often it is the kernel' in str(info.value)


def test_a_connection_that_ends_with_its_worker(scenes):
    batches = iter(loader(watched(Scenes(scenes), None, 1), 1, 'fork', timeout=120))
    next(batches)
    with pytest.raises(ConnectionResetError), named_worker_faults():  # the worker lives
        raise ConnectionResetError
    (worker,) = multiprocessing.active_children()

    def receive():
        os.kill(worker.pid, signal.SIGKILL)
        raise ConnectionResetError

    with pytest.raises(WorkerError, match='was ended by SIGKILL'), named_worker_faults():
        receive()


@pytest.mark.parametrize('number, advice', [(signal.SIGBUS, 'memory map'), (signal.SIGSEGV, 'A decoder crashed')])
def test_the_advice_fits_the_signal(scenes, tmp_path, number, advice):
    dataset = watched(Scenes(scenes, more=[DieAt('05.png', number)]), None, 1)
    words = f'was ended by {number.name}: it was reading .*05.png. .*{advice}'
    with pytest.raises(WorkerError, match=words), named_worker_faults():
        read(loader(dataset, 1, 'fork', timeout=120))


def test_a_worker_that_does_not_answer_is_named_after_the_timeout(substitutes):
    data, reasons, _ = substitutes
    dataset = watched(Scenes(data), None, 1, seconds=0)
    batches = loader(dataset, 1, 'fork', timeout=2)
    batches.batch_sampler.start_at(0, 3)  # it begins with image 12
    words = 'no batch for 2 s .*has been reading .*12.png for'
    with pytest.raises(WorkerError, match=words) as info, named_worker_faults():
        read(batches)
    assert '--resume' in str(info.value)


def test_other_errors_of_the_run_stay_as_they_are():
    with pytest.raises(RuntimeError, match='^size mismatch$'), named_worker_faults():
        raise RuntimeError('size mismatch')
    with pytest.raises(DatasetError, match='^a.png$'), named_worker_faults():
        raise DatasetError('a.png')


def test_a_timer_of_other_code_goes_on(scenes, tmp_path):
    rung = []
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    previous = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        watched(Scenes(scenes), tmp_path / 'broken.txt', 0)[0]
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 60
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        end = time.monotonic() + 60
        while not rung and time.monotonic() < end:  # signal.pause() would wait for ever if it came before
            time.sleep(0.001)
    finally:
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, before)
    assert rung


class Video:
    """A dataset whose index is a pair."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        video, frame = index
        return 10 * video + frame


def test_an_index_that_is_not_a_number_is_passed_on(tmp_path):
    assert watched(Video(), tmp_path / 'broken.txt', 0)[1, 2] == 12
    assert watched(Video(), None, 0)[1, 2] == 12


class DeadlyVideo(Video):
    """Its process dies when it reads."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_sample_without_a_number_is_not_named_after_another_one():
    dataset = watched(DeadlyVideo(), None, 1)
    words = 'it was reading a sample of DeadlyVideo whose index is not a number. '
    with pytest.raises(WorkerError, match=words), named_worker_faults():
        list(DataLoader(dataset, sampler=[(1, 2)], num_workers=1, multiprocessing_context='fork', timeout=120))


def test_an_error_ends_the_read(scenes):
    dataset = watched(Scenes(scenes, more=[Raises(KeyError('a'))]), None, 0)
    with pytest.raises(KeyError):
        dataset[3]
    assert [(one.number, one.reads) for one in dataset.current.read()] == [(3, False)]


@pytest.mark.parametrize('change', [lambda patch: patch.setattr(signal, 'getsignal', lambda _: None), None])
def test_without_a_handler_that_can_be_restored_there_is_no_limit(scenes, monkeypatch, change):
    if change is None:  # Windows
        monkeypatch.delattr(signal, 'setitimer')
        monkeypatch.delattr(signal, 'getitimer')
    else:
        change(monkeypatch)
        monkeypatch.setattr(signal, 'signal', None)
    assert collate_first(watched(Scenes(scenes), None, 0)[3]) == 3
