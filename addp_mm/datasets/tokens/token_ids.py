# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stored token ids as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from addp_mm.datasets.samplers.seeded_samples import random_state_of
from addp_mm.datasets.tokens.fingerprints import build_loaded, tokenizer_fingerprint
from addp_mm.datasets.tokens.token_store import (
    IDS,
    TokenStoreError,
    differences,
    finished_shards,
    open_ids,
    open_labels,
)
from addp_mm.registry import DATASETS

_ROWS_AT_ONCE = 65536


@DATASETS.register_module()
class TokenIds(Dataset):
    """The ids of images, which ``tools/dataset_converters/tokenize_images.py`` wrote.

    An item is ``dict(inputs=ids)``, int64 (L,): one view of an image, so an epoch visits each image
    once. If the ids were written with ``--labels``, it also has ``data_samples``, whose
    ``gt_label`` is the class of the image. The ids are memory-mapped. Images that could not be read
    when the ids were written are skipped.

    Args:
        data_root: Folder of the ids.
        tokenizer: Config of the tokenizer, with an ``init_cfg`` that loads its weights. It is
            loaded once and compared with the tokenizer that wrote the ids. Defaults to None: no
            check.
        images: A part of ``images`` in ``tokens.json``, such as ``dict(count=1281167)``. Defaults
            to None: no check.
        views: A part of ``views`` in ``tokens.json``, such as
            ``dict(count=8, augmentation='crop', image_size=256)``. Defaults to None: no check.
        random_view: Whether the view is drawn by numpy's global generator, as augmentations are
            (:class:`ResumableInfiniteSampler` makes this repeatable); otherwise it is the first
            one. Defaults to True.
        labels: A part of ``labels`` in ``tokens.json``, such as ``dict(classes=['cat', 'dog'])``.
            Defaults to None: no check.

    Raises:
        TokenStoreError: The ids are missing or incomplete, or they belong to another tokenizer,
            other images or other views.

    Example:
        >>> TokenIds('data/tokens')[0]['inputs'].shape  # doctest: +SKIP
        torch.Size([256])
    """

    def __init__(
        self,
        data_root: str | Path,
        tokenizer: Mapping | None = None,
        images: Mapping | None = None,
        views: Mapping | None = None,
        random_view: bool = True,
        labels: Mapping | None = None,
    ) -> None:
        self.data_root = Path(data_root)
        self.random_view = random_view
        self._shards = finished_shards(self.data_root)
        # Their names and reasons would be copied into each worker.
        broken_images = [image for _, about in self._shards for image in about.pop('broken')]
        broken = np.array([image['index'] for image in broken_images], np.int64)
        self._check(tokenizer, images, views, labels)
        self._maps, self._labels = self._open()
        self._ends = np.cumsum([len(ids) for ids in self._maps])
        # The number of readable images before each broken one.
        self._before_broken = np.sort(broken) - np.arange(len(broken))
        if not len(self):
            raise TokenStoreError(f'{self.data_root}: none of the {self._ends[-1]} images could be read')

    @property
    def metainfo(self) -> dict:
        """``tokenizer``, ``images`` and ``views`` of ``tokens.json``, and ``classes`` of labels."""
        about = self._shards[0][1]
        found = {key: about[key] for key in ('tokenizer', 'images', 'views')}
        return {**found, 'classes': about['labels']['classes']} if 'labels' in about else found

    def __len__(self) -> int:
        return int(self._ends[-1]) - len(self._before_broken)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.data_root} has the ids of {len(self)} images: image {index} does not exist')
        shard, row = self._position(index)
        ids, labels = self._maps[shard][row], self._labels[shard]
        view = 0
        if self.random_view and len(ids) > 1:
            with random_state_of(index):
                view = np.random.randint(len(ids))  # noqa: NPY002
        item: dict = dict(inputs=torch.from_numpy(ids[view].astype(np.int64)))
        if labels is not None:
            item['data_samples'] = BaseDataElement(gt_label=torch.tensor([int(labels[row])]))
        return item

    def find_rows(self, ids: np.ndarray) -> list[str]:
        """Where ids are stored, for messages about a batch. It reads all stored ids once.

        Args:
            ids: (B, L).

        Returns:
            For each row its shard, row and view; '' if it is not stored.
        """
        wanted = {row.tobytes(): number for number, row in enumerate(ids.astype(np.int64))}
        found = [''] * len(ids)
        for (folder, _), stored in zip(self._shards, self._maps, strict=True):
            for start in range(0, len(stored), _ROWS_AT_ONCE):
                part = stored[start : start + _ROWS_AT_ONCE]
                for row, view in np.argwhere(np.isin(part[..., 0], ids[:, 0])):
                    number = wanted.get(part[row, view].astype(np.int64).tobytes())
                    if number is not None:
                        found[number] = f'{folder / IDS} row {start + row} view {view}'
        return found

    def path_of(self, index: int) -> str:
        """File and row of the ids of an image; they are not read."""
        shard, row = self._position(index)
        return f'{self._shards[shard][0] / IDS}, row {row % self._shards[shard][1]["ids"]["shape"][0]}'

    def _position(self, index: int) -> tuple[int, int]:
        """Number of the shard of an image, and its row there."""
        image = index + int(np.searchsorted(self._before_broken, index, side='right'))
        shard = int(np.searchsorted(self._ends, image, side='right'))
        return shard, int(image - self._ends[shard])  # negative: from the end of the shard

    def __getstate__(self) -> dict:
        # A pickled memory map would contain all ids.
        return {**self.__dict__, '_maps': None, '_labels': None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._maps, self._labels = self._open()

    def _open(self) -> tuple[list[np.memmap], list[np.memmap | None]]:
        maps = [open_ids(folder / IDS, about) for folder, about in self._shards]
        return maps, [open_labels(folder, about) for folder, about in self._shards]

    def _check(
        self, tokenizer: Mapping | None, images: Mapping | None, views: Mapping | None, labels: Mapping | None
    ) -> None:
        recorded = self._shards[0][1]
        wanted: dict[str, Mapping] = dict(images=images or {}, views=views or {})
        if labels is not None:
            if 'labels' not in recorded:
                raise TokenStoreError(
                    f'{self.data_root} has ids without labels. Add them: run tokenize_images.py with the same '
                    'arguments and --labels'
                )
            wanted['labels'] = labels
        if tokenizer is not None:
            wanted['tokenizer'] = dict(fingerprint=tokenizer_fingerprint(build_loaded(tokenizer), tokenizer))
        other = list(differences(recorded, wanted))
        if other:
            raise TokenStoreError(
                f'{self.data_root} does not have the ids that the config needs: {"; ".join(other)}. '
                'Write the ids again with the settings of the config (tools/dataset_converters/'
                'tokenize_images.py), or correct the config'
            )
