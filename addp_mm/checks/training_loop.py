# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a config says about its training: the loop, the schedulers and the hooks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from addp_mm.checks.type_lookup import find_type
from addp_mm.config.type_names import type_name


@dataclass
class Loop:
    """What a training counts.

    Attributes:
        by_epoch: Whether it counts epochs.
        total: Number of epochs, or of iterations.
    """

    by_epoch: bool
    total: int

    @property
    def unit(self) -> str:
        """'epochs' or 'iterations'."""
        return 'epochs' if self.by_epoch else 'iterations'

    @property
    def key(self) -> str:
        """The key of :attr:`total`."""
        return 'train_cfg.max_epochs' if self.by_epoch else 'train_cfg.max_iters'


def loop_of(cfg: Config) -> Loop | None:
    """The loop of a config's ``train_cfg``.

    Args:
        cfg: The whole config.

    Returns:
        The loop. None if there is no training, if the class of the loop is unknown, or if the loop
        cannot be built.
    """
    return read_loop(cfg)[0]


def read_loop(cfg: Config) -> tuple[Loop | None, str]:
    """As :func:`loop_of`, with the reason why the loop cannot be built.

    Returns:
        The loop or None, and the reason in one sentence; '' if there is none.
    """
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, Mapping):
        return None, ''
    kind, by_epoch = train_cfg.get('type'), train_cfg.get('by_epoch')
    fault = ''
    if kind is not None and by_epoch is not None:
        fault = f'train_cfg has type={type_name(kind)!r} and by_epoch={by_epoch}: remove one of them'
    elif kind is not None:
        loop = find_type(kind, LOOPS)
        if not inspect.isclass(loop) or not issubclass(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
            return None, ''
        by_epoch = issubclass(loop, EpochBasedTrainLoop)
    elif by_epoch is None:
        fault = 'train_cfg needs by_epoch=True with max_epochs, or by_epoch=False with max_iters'
    key, other = ('max_epochs', 'max_iters') if by_epoch else ('max_iters', 'max_epochs')
    if not fault and train_cfg.get(key) is None:
        counts = 'epochs' if by_epoch else 'iterations'
        fault = f'train_cfg counts {counts} and has no {key}'
    if not fault and train_cfg.get(other) is not None:
        fault = (
            f'train_cfg has {key} and {other}: remove the one that does not belong to the loop '
            f'(--cfg-options train_cfg.by_epoch={not by_epoch} changes the loop of a train_cfg without type)'
        )
    return (None, fault) if fault else (Loop(bool(by_epoch), train_cfg[key]), '')


def schedulers_of(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield the schedulers of a config, each with its dotted path."""
    yield from _scheduler_nodes(cfg.get('param_scheduler'), 'param_scheduler')


def _scheduler_nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping) and 'type' in node:
        yield path, node
    elif isinstance(node, Mapping):  # one list for each of several optimizers
        for name, inner in node.items():
            yield from _scheduler_nodes(inner, f'{path}.{name}')
    elif isinstance(node, list | tuple):
        for index, inner in enumerate(node):
            yield from _scheduler_nodes(inner, f'{path}.{index}')


def hooks_of(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield the hooks of a config with dotted paths; without a CheckpointHook that of mmengine."""
    defaults = cfg.get('default_hooks') or {}
    if 'checkpoint' not in defaults:
        yield 'default_hooks.checkpoint', dict(type='CheckpointHook', interval=1)
    for name, hook in defaults.items():
        if isinstance(hook, Mapping):
            yield f'default_hooks.{name}', hook
    for index, hook in enumerate(cfg.get('custom_hooks') or []):
        if isinstance(hook, Mapping):
            yield f'custom_hooks.{index}', hook
