# Copyright (c) addp_mm contributors. Apache-2.0.
"""Call a function for many items in threads, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')
_AHEAD = 64  # calls that wait for a thread, so that millions of items do not fill the memory


def in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], num_workers: int, description: str
) -> Iterator[_Result]:
    """Yield ``function(item)`` for each item in order.

    Threads are enough for reading, hashing and decoding images: these release Python's lock.

    Args:
        function: The function.
        items: The items.
        num_workers: Number of threads. 0 and 1 call the function in this thread.
        description: Text before the progress bar, which only appears in a terminal.
    """
    progress = tqdm(desc=description, total=len(items), unit='', unit_scale=True, disable=None, leave=False)
    with progress:
        if num_workers < 2:
            for item in items:
                yield function(item)
                progress.update()
            return
        with ThreadPoolExecutor(num_workers) as pool:
            waiting = iter(items)
            futures = [pool.submit(function, item) for item in islice(waiting, _AHEAD * num_workers)]
            while futures:
                for future in futures:
                    yield future.result()
                    progress.update()
                futures = [pool.submit(function, item) for item in islice(waiting, _AHEAD * num_workers)]
