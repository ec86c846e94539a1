# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images with label maps some of which are broken, and loaders over them as in a training."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform, LoadAnnotations
from mmengine.dataset import BaseDataset
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, get_worker_info

from addp_mm.datasets.faults.current_samples import CurrentSamples
from addp_mm.datasets.faults.watched_dataset import WatchedDataset
from addp_mm.datasets.listed.broken_images import BrokenImages
from addp_mm.datasets.readers.load_image import LoadImage
from addp_mm.datasets.samplers.seeded_batches import SeededBatches

COUNT = 24


class Draw(BaseTransform):
    """Adds a random number, as an augmentation would draw it."""

    def transform(self, results):
        return {**results, 'drawn': np.random.rand()}  # noqa: NPY002


class DieAt(BaseTransform):
    """Ends its process by a signal at one image, as the kernel or a decoder that crashes does."""

    def __init__(self, name, number):
        self.name, self.number = name, number

    def transform(self, results):
        if results['img_path'].endswith(self.name):
            os.kill(os.getpid(), self.number)
            signal.pause()
        return results


def scene(folder, index):
    return str(folder / f'{index:02d}.png')


def label_map(folder, index):
    return str(folder / f'map_{index:02d}.png')


def write_scenes(folder):
    """Grey images whose value is their number, each with a label map."""
    folder.mkdir()
    for index in range(COUNT):
        Image.new('RGB', (6, 5), (index,) * 3).save(scene(folder, index))
        Image.new('L', (6, 5), index).save(label_map(folder, index))
    return folder


def break_scenes(folder):
    """A fault of each kind. Returns the number of the image, and words of the reason."""
    os.remove(scene(folder, 1))
    for path in (scene(folder, 4), label_map(folder, 7)):
        Path(path).write_bytes(Path(path).read_bytes()[:45])
    Path(scene(folder, 9)).write_bytes(b'no image')
    os.remove(scene(folder, 12))
    os.mkfifo(scene(folder, 12))  # nobody writes to it: opening it hangs
    os.remove(label_map(folder, 15))
    return {1: 'No such file', 4: '04.png', 7: 'map_07.png', 9: '09.png', 12: 'not read within', 15: 'map_15.png'}


class Scenes(BaseDataset):
    """The scenes as mmsegmentation reads them."""

    def __init__(self, folder, load=LoadImage, more=()):
        self.folder = folder
        super().__init__(pipeline=[load(), LoadAnnotations(with_bbox=False, with_label=False, with_seg=True), *more])

    def load_data_list(self):
        return [
            dict(img_path=scene(self.folder, k), seg_map_path=label_map(self.folder, k), instances=[])
            for k in range(COUNT)
        ]


def watched(dataset, path, num_workers, seconds=2, share=0.5):
    broken = None if path is None else BrokenImages(path, len(dataset), share, 'samples', 'Allow {share:g}.')
    return WatchedDataset(dataset, CurrentSamples(num_workers), seconds, broken)


def loader(dataset, num_workers, method=None, **options):
    """A loader with seeded batches, as RandomStateHook sets it."""
    batches = SeededBatches(BatchSampler(SequentialSampler(range(COUNT)), 4, False), 3)
    return DataLoader(
        dataset,
        num_workers=num_workers,
        batch_sampler=batches,
        collate_fn=collate,
        worker_init_fn=warm_up,
        multiprocessing_context=method if num_workers else None,
        **options,
    )


def warm_up(_):
    # the imports of a new process can take longer than the time limit of a sample
    with suppress(FileNotFoundError):
        get_worker_info().dataset.watched[0]


def collate(samples):
    return [(int(sample['img'][0, 0, 0]), int(sample['gt_seg_map'][0, 0]), sample.get('drawn')) for sample in samples]


def read(loaded):
    return [sample for batch in loaded for sample in batch]
