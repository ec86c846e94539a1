# Copyright (c) addp_mm contributors. Apache-2.0.
"""Base class of the datasets of your own images: a list on disk, a split, broken images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.dataset import Compose
from mmengine.logging import print_log
from torch.utils.data import Dataset

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.faults.replacing import read_or_replace
from addp_mm.datasets.listed.broken_images import BrokenImages, is_broken_image, is_gone
from addp_mm.datasets.listed.packed_names import PackedNames, write_names
from addp_mm.datasets.samplers.seeded_samples import random_state_of

CHANGED = ('error', 'keep', 'rescan')
SPLITS = (None, 'train', 'val')


class ListedImages(Dataset, ABC):
    """Images by number, from a list on disk.

    Rank 0 writes the list; all processes map it into memory. A broken image is logged by name and
    recorded in ``broken_images_….txt``. Another image, always the same, is used instead.

    Args:
        source: The file or folder with the images.
        pipeline: Transforms. The first one is :class:`LoadImage` or :class:`LoadMultiChannelImage`.
            Defaults to (): none.
        index_file: The file of the list. Defaults to None: in ``work_dir``.
        changed: Reaction if the source has changed since it was listed. 'error': an error. 'keep':
            a warning, and the list is used, so that a training can be resumed exactly; missing
            images are replaced and are not counted as broken. 'rescan': the images are listed
            again. Defaults to 'error'.
        split: None: all images. 'val': every ``val_every``-th. 'train': the others. Defaults to
            None.
        val_every: See ``split``. Defaults to 50.
        max_broken_share: Share of the images that may be broken. Ten more are always allowed, so
            that one broken image does not stop a small dataset. If more are broken, the training
            stops. Defaults to 0.001.
        work_dir: Folder of the training, for the list and the record of broken images. Defaults to
            None: the list is in ``~/.cache/addp_mm/image_lists`` and the record is next to the
            list. ``tools/train.py`` and ``tools/test.py`` set it.

    Raises:
        DatasetError: There are no images, or the source has changed.
        ValueError: An option is outside its range.
    """

    extensions: Sequence[str] = ()

    def __init__(
        self,
        source: str | Path,
        pipeline: Sequence = (),
        index_file: str | Path | None = None,
        changed: str = 'error',
        split: str | None = None,
        val_every: int = 50,
        max_broken_share: float = 0.001,
        work_dir: str | Path | None = None,
    ) -> None:
        if changed not in CHANGED or split not in SPLITS:
            raise ValueError(
                f'changed must be one of {CHANGED} and split one of {SPLITS}, got {changed!r} and {split!r}'
            )
        if val_every < 2 or not 0 <= max_broken_share <= 1:
            raise ValueError(
                f'val_every must be at least 2 and max_broken_share from 0 to 1, got {val_every} and {max_broken_share}'
            )
        self.source, self.changed, self.split, self.val_every = Path(source), changed, split, val_every
        self.index_file = Path(index_file or self._default_index_file(work_dir))
        _on_main_process(self._ensure_list)
        if not self.index_file.is_file():
            raise DatasetError(
                f'{self.index_file}: the list of images is not visible on every rank. Give an '
                'index_file in a folder that all nodes share.'
            )
        self.names = PackedNames(self.index_file)
        if not len(self):
            raise DatasetError(
                f'{self.source} has no images'
                + (f' for split {split!r}' if split else '')
                + (f'. The search was for names that end in {", ".join(self.extensions)}.' if self.extensions else '.')
            )
        name = '_'.join(['broken_images', self.index_file.stem.removeprefix('images_'), *filter(None, [split])])
        folder = Path(work_dir or self.index_file.parent)
        self.broken = BrokenImages(folder / f'{name}.txt', len(self), max_broken_share)
        _on_main_process(self.broken.clear)
        self.pipeline = Compose(pipeline)
        self._gone_is_logged = False

    @property
    def metainfo(self) -> dict:
        """Empty: the images have no labels."""
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
        """The output of the pipeline for an image.

        Raises:
            TooManyBrokenImagesError: More images are broken than are allowed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'{self.source} has {len(self)} images, so that image {index} does not exist')
        attempts = self.broken.allowed + 2
        with random_state_of(index):
            sample = read_or_replace(index, len(self), attempts, self._load, self._record)
        if sample is None:
            raise DatasetError(
                f'{self.source}: {attempts} images sampled instead of {self.name(int(index))} were broken '
                f'or missing. Repair those listed in {self.broken.path}. If many are missing, list the images '
                "again: changed='rescan' in the dataset's config, or tools/pretrain_from_folder.py "
                '--restart-from tokenizer.'
            )
        return sample

    def _load(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(int(index)))

    def _record(self, index: int, error: Exception) -> None:
        """Record a broken image; other errors are raised."""
        if not is_broken_image(error):
            raise error
        name = self.path_of(int(index))
        if self.changed == 'keep' and is_gone(error):
            self._log_gone(name)
        else:
            self.broken.add(name, error)

    def _log_gone(self, name: str) -> None:
        if not self._gone_is_logged:
            print_log(
                f'{name} no longer exists. Another image is used instead, as for all other missing images.',
                'current',
                WARNING,
            )
        self._gone_is_logged = True

    def name(self, index: int) -> str:
        """The name of an image in the list."""
        return self.names[self._row(index)].decode('utf-8', 'surrogateescape')

    def path_of(self, index: int) -> str:
        """``img_path`` of an image; the image is not read."""
        return self._path(self._row(index))

    def get_data_info(self, index: int) -> dict:
        """The input of the pipeline: ``sample_idx``, ``img_path``; packed images: ``img_bytes``."""
        return dict(sample_idx=index, **self._read(self._row(index)))

    @abstractmethod
    def _read(self, row: int) -> dict:
        """``img_path`` of a row of the list, and ``img_bytes`` if the path is not a file's."""

    def _path(self, row: int) -> str:
        """``img_path`` of a row of the list."""
        return self._read(row)['img_path']

    @abstractmethod
    def _names(self) -> Iterator[bytes]:
        """The names of the images in the order of the list."""

    @abstractmethod
    def _about(self) -> dict:
        """Settings that determine the list, as JSON."""

    def _difference(self, listed: PackedNames) -> str | None:
        """Description of a change of the source or the settings since the list was written."""
        changed = [key for key, value in self._about().items() if listed.about.get(key) != value]
        return f'{self.source}: {", ".join(changed)} changed' if changed else None

    def _row(self, index: int) -> int:
        """Row in the list of an image of the split."""
        if self.split is None:
            return index
        # rows 0, val_every, 2 * val_every, … are the split 'val'
        return index * self.val_every if self.split == 'val' else index + index // (self.val_every - 1) + 1

    def _ensure_list(self) -> None:
        if self.index_file.is_file() and self.changed != 'rescan':
            difference = self._difference(PackedNames(self.index_file))
            if difference is None:
                return
            if self.changed == 'error':
                raise DatasetError(
                    f'{difference} since the images were listed in {self.index_file}. Set '
                    "changed='rescan' in the dataset's config to list them again, or changed='keep' to "
                    'use the list unchanged.'
                )
            print_log(
                f"{difference} since the images were listed; {self.index_file} is used because of changed='keep'.",
                'current',
                WARNING,
            )
            return
        write_names(self.index_file, self._names(), self._about())

    def _default_index_file(self, work_dir: str | Path | None) -> Path:
        folder = Path(work_dir) if work_dir else Path.home() / '.cache/addp_mm/image_lists'
        path = self.source.absolute()
        return folder / f'images_{path.name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.index'


def _on_main_process(function: Callable[[], None]) -> None:
    """Call a function on rank 0 while all ranks wait; its DatasetError is raised on all ranks."""
    message: list[str | None] = [None]
    if dist.is_main_process():
        try:
            function()
        except DatasetError as error:
            message[0] = str(error)
    dist.broadcast_object_list(message)
    if message[0] is not None:
        raise DatasetError(message[0])
