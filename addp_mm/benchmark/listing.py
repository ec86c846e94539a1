# Copyright (c) addp_mm contributors. Apache-2.0.
"""Listings of contestants: configs that stand for a backbone, by data set and task.

A listing is a YAML file::

    fashion_scenes:                # a data set
      my_vit:                      # a name for --backbones
        title: My ViT, from scratch
        cls: configs/my_cls.py     # a path from the folder of the listing, or a shipped config
        det: configs/my_det.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addp_mm.benchmark.tasks import DATA
from addp_mm.config.shipped import ShippedFileError, config_path
from addp_mm.errors import ConfigError, suggest

SHIPPED = Path(__file__).with_name('shipped_backbones.yml')


@dataclass(frozen=True)
class Listed:
    """An entry of a listing.

    Args:
        title: Its name in tables.
        configs: Name or path of the config by task.
        listing: File of the listing. Paths are relative to its folder.
    """

    title: str
    configs: Mapping[str, str]
    listing: Path

    def config(self, task: str) -> Path:
        """Path of the config of a task.

        Raises:
            ConfigError: There is no such file, and no shipped config of that name.
        """
        name = self.configs[task]
        beside = self.listing.parent / name
        if beside.is_file():
            return beside.resolve()
        try:
            return Path(config_path(name))
        except ShippedFileError as error:
            raise ConfigError(f'listing {self.listing}: {beside} does not exist, and {error}') from error


#: The entries by data set and name.
Listing = dict[str, dict[str, Listed]]


def read_listing(path: Path) -> Listing:
    """Read a listing.

    Returns:
        The entries by data set and name.

    Raises:
        ConfigError: The file is missing, or is not such a listing.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'--listing {path} cannot be read: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'--listing {path} is not YAML: {" ".join(str(error).split())}') from error
    listing: Listing = {}
    for data, entries in _mapping(content, path, 'data sets').items():
        _require(data, DATA, path, 'data set')
        for name, entry in _mapping(entries, path, f'{data}: names').items():
            listing.setdefault(data, {})[str(name)] = _listed(path, data, str(name), entry)
    return listing


def read_listings(paths: Iterable[Path]) -> Listing:
    """Read the shipped listing and others; an entry of a later one replaces that of an earlier."""
    merged: Listing = {}
    for path in (SHIPPED, *paths):
        for data, entries in read_listing(path).items():
            merged.setdefault(data, {}).update(entries)
    return merged


def _listed(path: Path, data: str, name: str, entry: Any) -> Listed:
    fields = dict(_mapping(entry, path, f'{data}: {name}: configs by task'))
    title = str(fields.pop('title', name))
    for task in fields:
        _require(task, DATA[data].bases, path, f'{data}: {name}: task')
    if not fields:
        raise ConfigError(f'--listing {path}: {data}: {name} has no config; give one for {", ".join(DATA[data].bases)}')
    return Listed(title, {task: str(config) for task, config in fields.items()}, path)


def _mapping(content: Any, path: Path, what: str) -> Mapping:
    if not isinstance(content, dict):
        raise ConfigError(f'--listing {path}: a mapping is expected ({what}), not {type(content).__name__}')
    return content


def _require(name: Any, known: Iterable[str], path: Path, what: str) -> None:
    if name not in known:
        hint = suggest(str(name), known) or f'; choose from {", ".join(known)}'
        raise ConfigError(f'--listing {path}: {what} {name} is unknown{hint}')
