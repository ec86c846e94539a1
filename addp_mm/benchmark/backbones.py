# Copyright (c) addp_mm contributors. Apache-2.0.
"""From the names of backbones to contestants: listed configs, or the base config with a swap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from addp_mm.benchmark.choose_data import refuse_repeats
from addp_mm.benchmark.contestants import Contestant, file_name
from addp_mm.benchmark.listing import Listing
from addp_mm.benchmark.tasks import DATA
from addp_mm.config.config_file import load_config
from addp_mm.errors import ConfigError, UserError, suggest
from addp_mm.swap.plan import SwapError
from addp_mm.swap.plan_swap import plan_swap
from addp_mm.swap.write_config import base_name, write_config
from addp_mm.swap.zoo import ZOO, find_backbone


@dataclass(frozen=True)
class Choice:
    """What to compare.

    Args:
        backbones: Names of a listing, or what ``addp swap`` takes.
        pairs: Data sets and tasks.
        listing: Configs that stand for a backbone.
        folder: Folder for the configs of swaps.
        options: Options of the command line for every config. Defaults to (): none.
        roots: Folders of data sets by name. Defaults to those of the configs.
    """

    backbones: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    listing: Listing
    folder: Path
    options: tuple[str, ...] = ()
    roots: Mapping[str, Path] = field(default_factory=dict)

    def contestants(self) -> list[Contestant]:
        """The contestants of all pairs.

        A listed backbone takes part in the tasks for which it has a config. A missing config and a
        swap that is not possible give a contestant with a failure.

        Raises:
            ConfigError: A name is unknown or given twice.
        """
        self._check_names()
        found = (self._contestant(name, data, task) for data, task in self.pairs for name in self.backbones)
        return [contestant for contestant in found if contestant is not None]

    def _check_names(self) -> None:
        listed = sorted({name for data, _ in self.pairs for name in self.listing.get(data, {})})
        refuse_repeats('--backbones', self.backbones)
        for name in self.backbones:
            if name in listed:
                continue
            try:
                find_backbone(name)
            except SwapError as error:
                elsewhere = [data for data, entries in self.listing.items() if name in entries]
                if elsewhere:
                    raise ConfigError(f'--backbones {name} is a backbone of --data {" ".join(elsewhere)}') from error
                if hint := suggest(name, [*listed, *ZOO]):
                    raise ConfigError(f'--backbones {name} is unknown{hint}') from error
                raise ConfigError(f'--backbones: {error}') from error

    def _contestant(self, name: str, data: str, task: str) -> Contestant | None:
        root = self.roots.get(data)
        entry = self.listing.get(data, {}).get(name)
        if entry is not None:
            if task not in entry.configs:
                return None
            title, find = entry.title, partial(entry.config, task)
        else:
            title, find = name, partial(self._swapped, name, data, task)
        try:
            return Contestant(data, task, name, title, find(), self.options, root)
        except UserError as error:
            return Contestant(data, task, name, title, Path(), self.options, root, str(error))

    def _swapped(self, backbone: str, data: str, task: str) -> Path:
        path = self.folder / f'{data}_{task}_{file_name(backbone)}.py'
        swap(DATA[data].bases[task], backbone, path)
        return path


def swap(config: str, backbone: str, path: Path) -> None:
    """Write a shipped config with another backbone.

    Args:
        config: Name of the config.
        backbone: Name of the backbone.
        path: The file to write.

    Raises:
        SwapError: The backbone does not fit.
    """
    write_config(plan_swap(load_config(config), base_name(config, path), backbone), path)
