# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a swap of the backbone changes in a config: data, and how it is put into a config."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from addp_mm.errors import ConfigError


class SwapError(ConfigError):
    """A backbone that cannot be put into a config; the message says why."""


@dataclass(frozen=True)
class Change:
    """One value of the config that the swap sets.

    Args:
        key: Its name with dots, such as ``'model.backbone'``. It never goes into a list.
        value: The new value: numbers, strings, lists and dicts as a config file holds them.
        reason: Why, in one sentence that ends without a full stop.
        delete: Whether ``value``, a dict, replaces the whole old value (``_delete_=True``) instead
            of its keys of the same names. Defaults to False.
    """

    key: str
    value: Any
    reason: str
    delete: bool = False


@dataclass(frozen=True)
class SwapPlan:
    """All changes that put a backbone into a config.

    Args:
        config: Name of the config, as ``_base_`` accepts it.
        scope: Package of its models: 'mmdet', 'mmseg' or 'mmpretrain'.
        task: 'det', 'seg' or 'cls'.
        backbone: Name of the backbone, as the user gave it.
        changes: In the order in which a config file should name them. No two have the same key, and
            no key lies inside another. ``custom_imports`` is among them.
        notes: Sentences about what the config keeps or what the user has to know.
        warnings: Sentences about what makes the model worse than it could be.
        image_divisor: Both sides of every image in the model are multiples of this.
        trial_size: Height and width of small images that the swapped model can process.
    """

    config: str
    scope: str
    task: str
    backbone: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    image_divisor: int = 1
    trial_size: tuple[int, int] = (64, 64)

    def apply(self, cfg: Config) -> Config:
        """Return a copy of ``cfg`` with the changes, as the written config would be read."""
        return apply_changes(cfg, self.changes)


def apply_changes(cfg: Config, changes: tuple[Change, ...] | list[Change]) -> Config:
    """Return a copy of a config with ``changes``; the config itself stays as it is."""
    changed = copy.deepcopy(cfg)
    for change in changes:
        value = copy.deepcopy(change.value)
        if isinstance(value, dict) and change.delete:
            value['_delete_'] = True
        changed.merge_from_dict({change.key: value}, allow_list_keys=False)
    return changed
