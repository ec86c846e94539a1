# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the data sets of one's own images have in common: a list on disk, a split, and broken images skipped."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import dist
from mmengine.dataset import Compose
from mmengine.logging import MMLogger, print_log
from torch.utils.data import Dataset

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.broken_images import BROKEN_ALLOWANCE, BrokenImages, is_broken_image, is_gone
from addp_mm.datasets.listed.packed_names import PackedNames
from addp_mm.datasets.samplers.seeded_samples import random_state_of

CHANGED = ('error', 'keep', 'rescan')
SPLITS = (None, 'train', 'val')


class ListedImages(Dataset, ABC):
    """Images by number out of a list on disk. The first process writes the list, all others map it into memory.

    Args:
        source: What is listed, a file or folder.
        pipeline: Transforms. The first is :class:`LoadImage` or :class:`LoadMultiChannelImage`.
        index_file: The list. Default: in the work dir of the running training; without one, in
            ``~/.cache/addp_mm``.
        changed: What to do where the source is no longer as it was listed: 'error' stops, 'keep'
            goes on with the list (to resume a training exactly) and warns, 'rescan' makes a new
            one. With 'keep' other images take the place of those that are gone, and these do not
            count as broken.
        split: None for all images; 'val' for every ``val_every``-th, 'train' for the others.
        val_every: See ``split``.
        max_broken_share: Share of images that may be broken. Such an image is logged by name and
            noted in ``broken_images_….txt`` beside the list, and another one, always the same,
            takes its place. With one more, training stops.
        broken_allowance: How many more may be broken, so that small sets are not stopped by the
            first.

    Raises:
        DatasetError: Nothing is listed, or the source has changed.
        ValueError: An option lies outside its range.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        source: str | Path,
        pipeline: Sequence = (),
        index_file: str | Path | None = None,
        changed: str = 'error',
        split: str | None = None,
        val_every: int = 50,
        max_broken_share: float = 0.001,
        broken_allowance: int = BROKEN_ALLOWANCE,
    ) -> None:
        if changed not in CHANGED or split not in SPLITS:
            raise ValueError(
                f'changed must be one of {CHANGED} and split one of {SPLITS}, got {changed!r} and {split!r}'
            )
        if val_every < 2 or not 0 <= max_broken_share <= 1 or broken_allowance < 0:
            raise ValueError(
                'val_every must be at least 2, max_broken_share from 0 to 1 and broken_allowance not '
                f'negative, got {val_every}, {max_broken_share} and {broken_allowance}'
            )
        self.source, self.changed, self.split, self.val_every = Path(source), changed, split, val_every
        self.index_file = Path(index_file) if index_file else agreed(lambda: self._default_index_file())
        agreed(self._ensure_list)
        if not self.index_file.is_file():
            raise DatasetError(
                f'{self.index_file}: the list of images is not visible on every rank. Give an '
                'index_file in a folder that all nodes share.'
            )
        self.names = PackedNames(self.index_file)
        if not len(self):
            raise DatasetError(
                f'{self.source}: no images in it' + (f' for split {split!r}.' if split else '.') + self._advice()
            )
        self.broken = BrokenImages(self._broken_file(), len(self), max_broken_share, broken_allowance)
        agreed(self.broken.clear)
        self.pipeline = Compose(pipeline)
        self._gone = False

    @property
    def metainfo(self) -> dict:
        """Nothing: images without labels."""
        return {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the list of names."""
        return self.names.fingerprint

    def __len__(self) -> int:
        if self.split is None:
            return len(self.names)
        held_out = -(-len(self.names) // self.val_every)
        return held_out if self.split == 'val' else len(self.names) - held_out

    def __getitem__(self, index: int) -> Any:
        """What the pipeline makes of an image.

        Raises:
            TooManyBrokenImages: More images are broken than may be.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'{self.source} has {len(self)} images, there is no image {index}')
        with random_state_of(index):
            for attempt in range(self.broken.allowed + 2):
                chosen = int(index)
                if attempt:
                    # drawn from the numbers alone: the same in each process and after a resume
                    words = np.random.SeedSequence([chosen, attempt]).generate_state(1, np.uint64)
                    chosen = int(words[0] % np.uint64(len(self)))
                name = self.name(chosen)
                try:
                    results = self.get_data_info(chosen)
                    name = results['img_path']
                    return self.pipeline(results)
                except Exception as error:
                    if not is_broken_image(error):
                        raise
                    if self.changed == 'keep' and is_gone(error):
                        self._say_gone(name)
                    else:
                        self.broken.add(name, error)
        raise DatasetError(
            f'{self.source}: {self.broken.allowed + 2} images drawn in the place of {name} were broken '
            f'or gone. Mend those listed in {self.broken.path}; where many are gone, list the images '
            "anew: changed='rescan' in the dataset's config, or tools/pretrain_from_folder.py "
            '--restart-from tokenizer.'
        )

    def _say_gone(self, name: str) -> None:
        if not self._gone:
            print_log(
                f'{name} is gone; another image takes its place, and that of any other that is gone.',
                'current',
                WARNING,
            )
        self._gone = True

    def name(self, index: int) -> str:
        """The name of an image, as it is listed."""
        return self.names[self._listed(index)].decode('utf-8', 'surrogateescape')

    def get_data_info(self, index: int) -> dict:
        """What the pipeline starts from: ``sample_idx``, ``img_path`` and, if it is no file, ``img_bytes``."""
        return dict(sample_idx=index, **self._read(self._listed(index)))

    @abstractmethod
    def _read(self, listed: int) -> dict:
        """``img_path`` of an image by its number in the list, and ``img_bytes`` where that is no path of a file."""

    @abstractmethod
    def _write_list(self) -> None:
        """Write ``index_file``."""

    @abstractmethod
    def _difference(self, names: PackedNames) -> str | None:
        """In words, how the source or the settings differ from those that were listed."""

    def _advice(self) -> str:
        return ''

    def _listed(self, index: int) -> int:
        if self.split is None:
            return index
        # every val_every-th image is held out, from the first on
        return index * self.val_every if self.split == 'val' else index + index // (self.val_every - 1) + 1

    def _ensure_list(self) -> None:
        if self.index_file.is_file():
            difference = self._difference(PackedNames(self.index_file))
            if difference is None:
                return
            if self.changed == 'error':
                raise DatasetError(
                    f'{difference} since the images were listed in {self.index_file}. Set '
                    "changed='rescan' in the dataset's config to list them anew, or changed='keep' to "
                    'go on with the list.'
                )
            if self.changed == 'keep':
                print_log(
                    f'{difference} since the images were listed; {self.index_file} is used all the same.',
                    'current',
                    WARNING,
                )
                return
        self._write_list()

    def _default_index_file(self) -> Path:
        folder = running_work_dir() or Path.home() / '.cache/addp_mm/image_lists'
        path = self.source.absolute()
        return folder / f'images_{path.name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.index'

    def _broken_file(self) -> Path:
        end = f'_{self.split}' if self.split else ''
        folder = agreed(running_work_dir) or self.index_file.parent
        return folder / f'broken_images_{self.index_file.stem.removeprefix("images_")}{end}.txt'


def agreed(function: Callable) -> Any:
    """Let rank 0 alone call a function, and return its result on all ranks, or raise its DatasetError there."""
    outcome = [None, None]
    if dist.is_main_process():
        try:
            outcome[0] = function()
        except DatasetError as error:
            outcome[1] = str(error)
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise DatasetError(outcome[1])
    return outcome[0]


def running_work_dir() -> Path | None:
    """The work dir of the Runner that writes the current log, if there is one."""
    # asked for without need, mmengine makes an instance
    if not MMLogger._instance_dict:
        return None
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            return Path(handler.baseFilename).parents[1]
    return None


def names_of(records: Iterator[tuple], about: dict, **known: Callable) -> Iterator[tuple]:
    """Pass records on; when they are at their end, keep what is known only then."""
    yield from records
    about.update({key: value() for key, value in known.items()})
