# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings on one and on two processes of the same data, whose weights and gradients are recorded.

The processes of one training after the other are forked from the one that has imported the heavy
packages. Each writes ``FOLDER/<training>_<rank>.pth``.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  # visualizers import it: once, before the forks
import torch
import torch.distributed.fsdp
import torch.multiprocessing as mp

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext


def in_one(folder: Path, name: str, job, **options) -> None:
    """Run ``job(world_size=1)`` in a process of its own."""
    mp.start_processes(_process, (1, None, folder, name, job, options), nprocs=1, start_method='fork')


def in_two(folder: Path, name: str, job, **options) -> None:
    """Run ``job(world_size=2)`` in two processes of one group."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.start_processes(_process, (2, port, folder, name, job, options), nprocs=2, start_method='fork')


def records(folder: Path) -> dict:
    """What the jobs have returned, by ``<training>_<rank>``."""
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob('*.pth')}


def _process(rank: int, world_size: int, port: int | None, folder: Path, name: str, job, options: dict) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if world_size > 1:
        os.environ.update(
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
        )
    torch.save(job(folder / name, world_size, **options), folder / f'{name}_{rank}.pth')
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
