# Copyright (c) addp_mm contributors. Apache-2.0.
"""The contestants of a benchmark: for each data set and task, a config for each backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.analysis.batches import training_size
from addp_mm.benchmark.data_folder import data_options, data_root
from addp_mm.benchmark.finetuning import FineTuning
from addp_mm.benchmark.short_schedule import last_checkpoint, short_schedule
from addp_mm.benchmark.tasks import DATA, TASKS
from addp_mm.checkpoints.reading import resolve_asset
from addp_mm.checks.argument_kinds import argument_kinds
from addp_mm.checks.weights import initial_weights
from addp_mm.config.config_file import load_config
from addp_mm.errors import ConfigError


@dataclass(frozen=True)
class Contestant:
    """One backbone on one task and data set.

    Args:
        data: Name of the data set.
        task: Name of the task.
        backbone: Name of the backbone.
        title: Its name in tables.
        config: The config; an empty path if there is none.
        options: Options of the command line for the config. Defaults to (): none.
        root: Folder of the data. Defaults to None: that of the config.
        failure: Why there is no config. Defaults to '': there is one.
    """

    data: str
    task: str
    backbone: str
    title: str
    config: Path
    options: tuple[str, ...] = ()
    root: Path | None = None
    failure: str = ''

    @property
    def name(self) -> str:
        """Name of its files."""
        return f'{self.data}_{self.task}_{file_name(self.backbone)}'

    def load(self) -> Config:
        """The config with the options.

        Raises:
            ConfigError: The config has a mistake, or an option has no effect.
        """
        return load_config(str(self.config), list(self.options), argument_kinds)

    def finetuning(self, cfg: Config, seed: int, folder: Path, max_iters: int | None = None) -> FineTuning:
        """The training with a seed.

        Args:
            cfg: From :meth:`load`.
            seed: The seed.
            folder: Folder in which each training has a folder.
            max_iters: Iterations. Defaults to None: the whole schedule.

        Raises:
            ConfigError: The schedule cannot be shortened.
        """
        shortened = list(self.options)
        if max_iters:
            shortened += short_schedule(cfg, max_iters)
        train, test = ([*shortened, *self._moved(cfg, splits)] for splits in (('train', 'val'), ('test',)))
        return FineTuning(
            f'{self.title} ({TASKS[self.task].title.lower()} on {DATA[self.data].title})',
            self.config,
            TASKS[self.task].metrics,
            seed,
            folder=folder / f'{self.name}_seed{seed}',
            checkpoint_name=last_checkpoint(cfg, max_iters),
            train_options=tuple(train),
            test_options=tuple(option for option in test if not option.startswith('train_')),
            inputs=tuple(self._inputs(cfg)),
        )

    def data_folder(self, cfg: Config) -> Path:
        """Folder of the data."""
        return self.root or Path(data_root(cfg))

    def _moved(self, cfg: Config, splits: Sequence[str]) -> list[str]:
        return data_options(cfg, self.root, splits) if self.root else []

    def _inputs(self, cfg: Config) -> list[Path]:
        """Local weights, and the file that identifies the data."""
        weights = [resolve_asset(path) for path in initial_weights(cfg).values()]
        marker = self.data_folder(cfg) / DATA[self.data].marker
        files = [*(Path(path).expanduser() for path in weights if '://' not in path), marker]
        return [path for path in files if path.is_file()]


def file_name(backbone: str) -> str:
    """A backbone's name with only letters that file names have."""
    return ''.join(letter if letter.isalnum() or letter in '-_.' else '-' for letter in backbone)


def common_size(
    contestants: Sequence[tuple[Contestant, Config]], batch_size: int | None, img_size: Sequence[int] | None
) -> tuple[int, tuple[int, int]]:
    """The batch size, and height and width, with which contestants of one task are measured.

    Args:
        contestants: The contestants with their configs.
        batch_size: Of the command line. Defaults to that of the configs.
        img_size: Of the command line. Defaults to that of the configs.

    Raises:
        ConfigError: The configs differ.
    """
    if batch_size is None:
        batch_size = _shared('--batch-size', [(one, cfg.train_dataloader.batch_size) for one, cfg in contestants])
    if img_size is None:
        img_size = _shared('--img-size', [(one, training_size(cfg)) for one, cfg in contestants])
    height, width = img_size
    return batch_size, (height, width)


def _shared(option: str, values: Sequence[tuple[Contestant, Any]]) -> Any:
    first, value = values[0]
    for other, its_value in values[1:]:
        if its_value != value:
            raise ConfigError(
                f'the configs of {first.backbone} and {other.backbone} differ ({value} and {its_value}): add {option}'
            )
    return value
