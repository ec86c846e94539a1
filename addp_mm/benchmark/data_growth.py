# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a data set of so many images costs at its start and in each worker."""

from __future__ import annotations

import gc
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from addp_mm.analysis.peak_memory import added_memory
from addp_mm.analysis.private_memory import private_memory, unique_memory
from addp_mm.benchmark.made_up_data import KINDS
from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler
from addp_mm.processes import worker_context

_WARM_UP = 10  # images
# Each page of 4 KiB holds some Python objects of about 100 bytes, so this touches all of them.
_EVERY = 10
_SEED = 0
_START_METHOD = 'forkserver' if sys.platform == 'linux' else 'spawn'


class _Reading(Dataset):
    """Item w: what worker w uses before and after it has read the list."""

    def __init__(self, images: Any, num_workers: int) -> None:
        self.images, self.num_workers = images, num_workers

    def __len__(self) -> int:
        return self.num_workers

    def __getitem__(self, worker: int) -> dict[str, float | None]:
        read = getattr(self.images, 'get_data_info', self.images.__getitem__)
        before, begun = private_memory(), time.perf_counter()
        for index in range(0, len(self.images), _EVERY):
            read(index)
        seconds = time.perf_counter() - begun
        after = private_memory()
        return dict(private_before=before, private=after, unique=unique_memory(), seconds=seconds)


def measure_first_start(kind: str, folder: Path, count: int) -> dict[str, float | None]:
    """Open a data set whose list is not written yet.

    Args:
        kind: A key of :data:`~addp_mm.benchmark.made_up_data.KINDS`.
        folder: Folder of its data.
        count: Number of images.

    Returns:
        ``first_seconds``, and ``first_peak_bytes`` above what was in use before.
    """
    _warm_up(kind)
    seconds = 0.0

    def run() -> None:
        nonlocal seconds
        begun = time.perf_counter()
        KINDS[kind].open(folder, count)
        seconds = time.perf_counter() - begun

    peak = added_memory(run, torch.device('cpu'))
    return dict(first_seconds=seconds, first_peak_bytes=peak)


def measure_start(kind: str, folder: Path, count: int, num_workers: int) -> dict[str, float | None]:
    """Open a data set as every later start does, and read its list in workers.

    Args:
        kind: A key of :data:`~addp_mm.benchmark.made_up_data.KINDS`.
        folder: Folder of its data, with its list.
        count: Number of images.
        num_workers: Number of workers.

    Returns:
        Seconds and kept bytes of the start (``start_``) and of the order of the first epoch
        (``order_``), ``pickle_bytes`` of the data set, and of the worker that needs most:
        ``worker_copied_bytes`` while it reads, ``worker_private_bytes`` and
        ``worker_unique_bytes`` after it; ``read_seconds`` of one image.
    """
    _warm_up(kind)
    images, start_seconds, start_bytes = _kept(lambda: KINDS[kind].open(folder, count))
    if len(images) != count:
        raise RuntimeError(f'{kind}: {len(images)} images instead of {count}')
    order = iter(ResumableInfiniteSampler(images, seed=_SEED))
    _, order_seconds, order_bytes = _kept(lambda: next(order))
    reading = _Reading(images, num_workers)
    loader = DataLoader(reading, num_workers=num_workers, collate_fn=_only, multiprocessing_context=worker_context())
    found = list(loader)
    return dict(
        start_seconds=start_seconds,
        start_bytes=start_bytes,
        order_seconds=order_seconds,
        order_bytes=order_bytes,
        pickle_bytes=len(pickle.dumps(images)),
        worker_copied_bytes=_most(_difference(one['private'], one['private_before']) for one in found),
        worker_private_bytes=_most(one['private'] for one in found),
        worker_unique_bytes=_most(one['unique'] for one in found),
        read_seconds=max(one['seconds'] for one in found) / len(range(0, count, _EVERY)),
    )


def measure_point(kind: str, count: int, num_workers: int, scratch: Path) -> dict[str, Any]:
    """Make up a data set, and measure its first and a later start in fresh processes.

    Args:
        kind: A key of :data:`~addp_mm.benchmark.made_up_data.KINDS`.
        count: Number of images.
        num_workers: Number of workers.
        scratch: Folder in which the data are written, and removed afterwards.
    """
    with tempfile.TemporaryDirectory(prefix='addp_images_', dir=scratch) as folder:
        KINDS[kind].write(Path(folder), count)
        first = in_fresh_process(measure_first_start, kind, Path(folder), count)
        later = in_fresh_process(measure_start, kind, Path(folder), count, num_workers)
    return dict(kind=kind, images=count, **first, **later)


def preload(kinds: Sequence[str]) -> None:
    """Choose what fresh processes have imported; call it before the first of them.

    Args:
        kinds: The kinds that will be measured.
    """
    modules = ['addp_mm.registry', 'mmpretrain.datasets'] if 'mmpretrain' in kinds else []
    if _START_METHOD == 'forkserver':
        get_context(_START_METHOD).set_forkserver_preload([__name__, *modules])


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function in a process that has measured nothing yet.

    On Linux it is forked from a server that has only imported modules; see :func:`preload`.
    """
    with ProcessPoolExecutor(1, get_context(_START_METHOD)) as pool:
        return pool.submit(function, *args).result()


def _warm_up(kind: str) -> None:
    """Open a small data set, so that everything is imported.

    Python's garbage collector then leaves the objects of the libraries alone: in a worker it would
    copy them, whatever the data set is.
    """
    with tempfile.TemporaryDirectory(prefix='addp_images_') as folder:
        KINDS[kind].write(Path(folder), _WARM_UP)
        images = KINDS[kind].open(Path(folder), _WARM_UP)
        next(iter(ResumableInfiniteSampler(images, seed=_SEED)))
    gc.freeze()


def _kept(run: Callable[[], Any]) -> tuple[Any, float, int | None]:
    """Result of a call, its seconds, and the private memory that it keeps."""
    gc.collect()
    before, begun = private_memory(), time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begun
    gc.collect()
    return result, seconds, _difference(private_memory(), before)


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else max(0, after - before)


def _most(values: Any) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _only(items: Sequence[Any]) -> Any:
    return items[0]
