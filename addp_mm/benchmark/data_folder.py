# Copyright (c) addp_mm contributors. Apache-2.0.
"""The folder of a config's data, and options that move the data to another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.config.nodes import nodes_below


def data_root(cfg: Config, split: str = 'train') -> str:
    """Folder of a config's data, without a slash at its end; '' if the config names none.

    Args:
        cfg: The config.
        split: 'train', 'val' or 'test'. Defaults to 'train'.
    """
    loader = cfg.get(f'{split}_dataloader') or {}
    roots = [value for key, value in _texts(loader) if key.rsplit('.', 1)[-1] == 'data_root' and value]
    return roots[0].rstrip('/') if roots else ''


def data_options(cfg: Config, folder: str | Path, splits: Sequence[str]) -> list[str]:
    """Options that move a config's data to another folder: of loaders and of evaluators.

    Args:
        cfg: The config.
        folder: The new folder.
        splits: Some of 'train', 'val' and 'test'.
    """
    options = []
    for split in splits:
        old = data_root(cfg, split)
        for part in ('dataloader', 'evaluator'):
            if part == 'evaluator' and split == 'train':
                continue
            section = cfg.get(f'{split}_{part}') or {}
            for key, value in _texts(section, f'{split}_{part}'):
                if old and (value.rstrip('/') == old or value.startswith(f'{old}/')):
                    options.append(f'{key}={folder}{value[len(old) :]}')
    return options


def _texts(node: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Every text in a part of a config, with its dotted key."""
    return ((path, value) for path, value in nodes_below(node, key) if isinstance(value, str))
