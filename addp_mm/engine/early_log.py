# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write what was logged before a runner exists into its log file."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def early_log() -> Iterator[Callable[[logging.Logger], None]]:
    """Keep the records of mmengine's current logger, which has no file yet. They are printed, too.

    Yields:
        A function that takes the logger of a runner, and writes the kept records into its file. It
        is called once.
    """
    keeper, first = _Keeper(), MMLogger.get_current_instance()

    def write(logger: logging.Logger) -> None:
        first.removeHandler(keeper)
        if logger is first:
            return  # they are in its file
        for handler in (one for one in logger.handlers if isinstance(one, logging.FileHandler)):
            for record in keeper.records:
                handler.handle(record)

    first.addHandler(keeper)
    try:
        yield write
    finally:
        first.removeHandler(keeper)
