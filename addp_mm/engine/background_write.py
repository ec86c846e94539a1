# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write one file at a time in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundWrite:
    """Runs one function at a time in a thread. Its error is raised in the thread of the training.

    Python waits for the thread before it ends, so that a write is completed also after an error of
    the training.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Start a function, after the one before has ended.

        Args:
            write: The function.

        Raises:
            BaseException: The error of the function before.
        """
        self.finish()
        self._thread = threading.Thread(target=self._run, args=(write,), name='checkpoint')
        self._thread.start()

    def finish(self) -> None:
        """Wait for the function that runs, if there is one.

        Raises:
            BaseException: Its error, once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error of a function that has ended, once; do not wait for one that runs."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:  # it is raised in the other thread
            self._error = error
