# Copyright (c) addp_mm contributors. Apache-2.0.
"""From the names of backbones to contestants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from addp_mm.benchmark.contestants import Contestant
from addp_mm.benchmark.listing import Listing
from addp_mm.errors import ConfigError, suggest


def find_contestants(
    backbones: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    listing: Listing,
    options: Sequence[str] = (),
    roots: dict[str, Path] | None = None,
) -> list[Contestant]:
    """The contestants of all pairs of data set and task.

    Args:
        backbones: Names of a listing.
        pairs: Data sets and tasks.
        listing: Configs that stand for a backbone.
        options: Options of the command line for every config. Defaults to (): none.
        roots: Folders of data sets by name. Defaults to None: those of the configs.

    Raises:
        ConfigError: A name is unknown or given twice.
    """
    known = sorted({name for data, _ in pairs for name in listing.get(data, {})})
    for name in backbones:
        if backbones.count(name) > 1:
            raise ConfigError(f'--backbones {name} is given twice')
        if name not in known:
            elsewhere = [data for data, entries in listing.items() if name in entries]
            hint = f'; --data {" ".join(elsewhere)} has it' if elsewhere else suggest(name, known)
            raise ConfigError(f'--backbones {name} is unknown{hint}')
    found = []
    for data, task in pairs:
        for name in backbones:
            entry = listing.get(data, {}).get(name)
            if entry is not None and task in entry.configs:
                root = (roots or {}).get(data)
                found.append(Contestant(data, task, name, entry.title, entry.configs[task], tuple(options), root))
    return found
