# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read YAML without tags that run code."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def yaml_loader() -> type:
    """A loader class for ``yaml.load`` that reads data only.

    Of the tags of Python it knows ``!!python/tuple``, which mmengine's dumps of configs have.
    """
    import yaml

    class DataLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
        """Reads data only."""

    DataLoader.add_constructor('tag:yaml.org,2002:python/tuple', _tuple)
    return DataLoader


def _tuple(loader: Any, node: Any) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))
