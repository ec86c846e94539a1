# Copyright (c) addp_mm contributors. Apache-2.0.
"""Collect what is logged as a warning, instead of printing it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

# mmengine's words about a registry that a package does not have; there is nothing to do
_ABOUT_ITSELF = 'Failed to search registry with scope'


class _Collector(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts and not text.startswith(_ABOUT_ITSELF):
            self.texts.append(text)


@contextmanager
def captured_warnings() -> Iterator[tuple[list[str], Callable[[logging.Logger], None]]]:
    """Collect the warnings of mmengine's current logger; none of them is printed.

    Yields:
        The texts so far, each one once; and a function that adds another logger, such as that of a
        runner.
    """
    texts: list[str] = []
    changed: list[tuple[logging.Logger, list[logging.Handler]]] = []

    def add(logger: logging.Logger) -> None:
        changed.append((logger, logger.handlers))
        logger.handlers = [_Collector(texts)]

    add(MMLogger.get_current_instance())
    try:
        yield texts, add
    finally:
        for logger, handlers in changed:
            logger.handlers = handlers
