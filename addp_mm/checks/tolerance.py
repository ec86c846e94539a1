# Copyright (c) addp_mm contributors. Apache-2.0.
"""The share of the training data that may be faulty: what the checks then warn about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging import WARNING
from typing import Any

from mmengine.logging import print_log

from addp_mm.config.nodes import node_at
from addp_mm.datasets.listed.broken_images import num_allowed

SHARE_KEY = 'default_hooks.broken_samples.max_broken_share'
_DEFAULT = 0.001  # of BrokenSamplesHook
_share: ContextVar[float | None] = ContextVar('share', default=None)


def broken_share(cfg: Any) -> float | None:
    """Share of the training data that may be broken, by the config of BrokenSamplesHook.

    Returns:
        The share; None if ``default_hooks.broken_samples`` is None.
    """
    hook = node_at(cfg, 'default_hooks.broken_samples', {})
    return hook.get('max_broken_share', _DEFAULT) if isinstance(hook, Mapping) else None


@contextmanager
def tolerating(share: float | None) -> Iterator[None]:
    """Let the checks in this context warn about a few missing or damaged files.

    Args:
        share: As :func:`broken_share` returns it; None: every such file is an error.
    """
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def is_tolerated(message: str, count: int, total: int) -> bool:
    """Whether faulty files are few enough; then a warning is logged.

    Args:
        message: What is wrong with them.
        count: Their number.
        total: Number of all files.
    """
    share = _share.get()
    if share is None or count > num_allowed(share, total):
        return False
    print_log(f'{message} The training uses other samples instead.', 'current', WARNING)
    return True
