# Copyright (c) addp_mm contributors. Apache-2.0.
"""The share of the data that may be faulty, and the time in which a file must be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from logging import WARNING
from typing import Any

from mmengine.logging import print_log

from addp_mm.config.nodes import node_at
from addp_mm.datasets.faults.time_limit import time_limit
from addp_mm.datasets.listed.broken_images import num_allowed

_HOOK = 'default_hooks.broken_samples'
SHARE_KEY = f'{_HOOK}.max_broken_share'
_DEFAULT, _SECONDS = 0.001, 120.0  # of BrokenSamplesHook
_share: ContextVar[float | None] = ContextVar('share', default=None)
_seconds: ContextVar[float] = ContextVar('seconds', default=_SECONDS)


def broken_share(cfg: Any) -> float | None:
    """Share of the training data that may be broken, by the config of BrokenSamplesHook.

    Returns:
        The share; None if ``default_hooks.broken_samples`` is None.
    """
    hook = node_at(cfg, _HOOK, {})
    return hook.get('max_broken_share', _DEFAULT) if isinstance(hook, Mapping) else None


def sample_seconds(cfg: Any) -> float:
    """Time limit of a sample in seconds, by the config of BrokenSamplesHook; 120 without it."""
    hook = node_at(cfg, _HOOK, {})
    seconds = hook.get('sample_seconds') if isinstance(hook, Mapping) else None
    # the hook itself refuses other values, after the checks
    return seconds if isinstance(seconds, int | float) and seconds >= 0 else _SECONDS


@contextmanager
def tolerating(share: float | None, seconds: float = _SECONDS) -> Iterator[None]:
    """Let the checks in this context warn about a few missing or damaged files.

    Args:
        share: As :func:`broken_share` returns it; None: every such file is an error.
        seconds: The limit of :func:`file_time_limit`. Defaults to 120.
    """
    tokens = _share.set(share), _seconds.set(seconds)
    try:
        yield
    finally:
        _share.reset(tokens[0])
        _seconds.reset(tokens[1])


def file_time_limit() -> AbstractContextManager[None]:
    """Limits the time in which a check reads a file.

    Raises:
        SlowSampleError: The limit is exceeded. It is an OSError.
    """
    return time_limit(_seconds.get())


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
