# Copyright (c) addp_mm contributors. Apache-2.0.
"""Replace broken samples of the training data, and name those of other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import IterableDataset

from addp_mm.datasets.faults.current_samples import CurrentSamples
from addp_mm.datasets.faults.watched_dataset import WatchedDataset
from addp_mm.datasets.listed.broken_images import BrokenImages
from addp_mm.errors import ConfigError
from addp_mm.registry import HOOKS

_RECORD = 'broken_samples.txt'
_REMEDY = (
    'Repair them and resume. Or allow more: the samples found so far need '
    'default_hooks.broken_samples.max_broken_share={share:g}.'
)


@HOOKS.register_module()
class BrokenSamplesHook(Hook):
    """Keep a training going when files of the data disappear, are damaged, or cannot be read.

    It works with every dataset with indices. A broken sample of the training data is logged by
    name, recorded in ``broken_samples.txt`` of the work dir, and replaced by another one, which
    follows from its number alone: a resumed training uses the same one. Images in a list
    (:class:`~addp_mm.datasets.ImageFiles` and others) have their own record and share. In
    validation and test a broken sample is an error, which names the file.

    Errors of the program are no broken samples: an error of an unknown kind counts only if a file
    of the sample cannot be decoded.

    Args:
        max_broken_share: Share of the training samples that may be broken. Ten more are always
            allowed. If more are broken, the training stops with their list. Defaults to 0.001.
        sample_seconds: Time limit of one sample in seconds. A read that takes longer counts as
            broken. 0: none. Defaults to 120.

    Raises:
        ConfigError: An option is outside its range.
    """

    priority = 'ABOVE_NORMAL'  # before the checks of the first samples

    def __init__(self, max_broken_share: float = 0.001, sample_seconds: float = 120) -> None:
        if not 0 <= max_broken_share <= 1 or sample_seconds < 0:
            raise ConfigError(
                'default_hooks.broken_samples: max_broken_share must be from 0 to 1 and sample_seconds at least 0, got '
                f'{max_broken_share} and {sample_seconds}'
            )
        self.max_broken_share, self.sample_seconds = max_broken_share, sample_seconds
        self._broken: BrokenImages | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the data of training and validation."""
        loader = runner.train_dataloader
        if _has_samples(loader):
            self._broken = BrokenImages(
                Path(runner.work_dir) / _RECORD, len(loader.dataset), self.max_broken_share, 'samples', _REMEDY
            )
            if dist.is_main_process():
                self._broken.clear()
            dist.barrier()
            self._watch(loader, self._broken)
        if runner.val_loop is not None:
            self._watch_loop(runner.val_loop)

    def before_val(self, runner: Runner) -> None:
        """Watch the data of a validation without a training."""
        self._watch_loop(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Watch the data of a test."""
        self._watch_loop(runner.test_loop)

    def after_train(self, runner: Runner) -> None:
        """Log the number of broken samples."""
        found = self._broken.read() if self._broken else {}
        if found:
            runner.logger.warning(
                f'{len(found)} broken samples were replaced by others in this training; they are listed in '
                f'{self._broken.path}'  # type: ignore[union-attr]
            )

    def _watch_loop(self, loop: Any) -> None:
        for name in ('dataloader', 'bank_dataloader'):
            self._watch(getattr(loop, name, None), None)

    def _watch(self, loader: Any, broken: BrokenImages | None) -> None:
        if not _has_samples(loader):
            return
        dataset = loader.dataset
        inner = getattr(dataset, 'dataset', None)
        if inner is not None and not hasattr(dataset, 'get_data_info'):
            # it mixes samples, as a mosaic does: only the dataset inside knows which one is broken
            dataset.dataset = self._watched(inner, loader, broken)
        # DataLoader refuses a new dataset, which a running iterator would not see: none runs yet
        object.__setattr__(loader, 'dataset', self._watched(dataset, loader, broken))

    def _watched(self, dataset: Any, loader: Any, broken: BrokenImages | None) -> WatchedDataset:
        return WatchedDataset(dataset, CurrentSamples(loader.num_workers), self.sample_seconds, broken)


def _has_samples(loader: Any) -> bool:
    dataset = getattr(loader, 'dataset', None)
    return hasattr(dataset, '__len__') and not isinstance(dataset, IterableDataset | WatchedDataset)
