# Copyright (c) addp_mm contributors. Apache-2.0.
"""Threads that write images while the device generates the next ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any


class ImageWriters:
    """Calls ``write`` in threads, with a limited number of waiting images.

    At the end of the ``with`` block all images are written. If the block raises an error, waiting
    images are left out. If ``write`` raises one, nothing more is written, and the next
    :meth:`submit` or the end of the block raises it.

    Args:
        write: Function of the arguments of :meth:`submit`.
        num_threads: Number of threads.
        limit: Largest number of images that wait or are being written; at it, :meth:`submit` waits.

    Example:
        >>> with ImageWriters(files.write, num_threads=4, limit=32) as writers:  # doctest: +SKIP
        ...     writers.submit(0, image)
    """

    def __init__(self, write: Callable[..., object], num_threads: int, limit: int) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(num_threads)
        self._free = threading.Semaphore(limit)
        self._error: Exception | None = None

    def __enter__(self) -> ImageWriters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._raise_error()

    def submit(self, *arguments: Any) -> None:
        """Queue an image."""
        self._free.acquire()
        self._raise_error()
        self._pool.submit(self._call, *arguments)

    def _call(self, *arguments: Any) -> None:
        try:
            if self._error is None:
                self._write(*arguments)
        except Exception as error:  # raised again in the main thread
            self._error = error
        finally:
            self._free.release()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
