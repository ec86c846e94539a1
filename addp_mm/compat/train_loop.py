# Copyright (c) addp_mm contributors. Apache-2.0.
"""The training loop by iterations reads no data before it trains."""

from collections.abc import Iterator
from typing import Any

_ITERATOR = '_InfiniteDataloaderIterator'


def patch_train_loop(module: Any) -> bool:
    """Make the loop's iterator start its workers when the first batch is asked for.

    mmengine starts them when the loop is built. A resumed training knows its position later, so
    the workers load batches that were trained on, and samplers with a state lose them.

    Args:
        module: ``mmengine.runner.loops``.

    Returns:
        Whether the module reads ahead.
    """
    original = getattr(module, _ITERATOR, None)
    if original is None:
        return False
    probe = _Probe()
    original(probe)
    if probe.read:
        setattr(module, _ITERATOR, type(_ITERATOR, (original,), dict(__init__=_init, __getattr__=_first_read)))
    return probe.read


def _init(self: Any, dataloader: Any) -> None:
    self._dataloader, self._epoch = dataloader, 0


def _first_read(self: Any, name: str) -> Any:
    if name != '_iterator':
        raise AttributeError(name)
    self._iterator = iter(self._dataloader)
    return self._iterator


class _Probe:
    """Data that records whether it is read."""

    read = False

    def __iter__(self) -> Iterator:
        self.read = True
        return iter(())
