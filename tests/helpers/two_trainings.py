# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings on two forked processes: a tiny predictor on stored ids, and hooks that disturb one."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  # visualizers import it: once, before the forks
import mmpretrain.models  # noqa: F401
import numpy as np
import torch.distributed.fsdp  # noqa: F401
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from addp_mm.datasets.tokens.token_store import TokenWriter
from helpers.tiny_addp import MODEL, SPACE

ROOT = Path(__file__).parents[2]
SECONDS = 120  # after which a process that hangs is ended, and the test fails
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['addp_mm', 'helpers.two_trainings'])
model = {model!r}
train_dataloader = dict(
    batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='addp_mm.ResumableInfiniteSampler'), dataset=dict(type='addp_mm.TokenIds', data_root={ids!r}))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3),
                     logger=dict(type='LoggerHook', interval=1),
                     random_state=dict(type='addp_mm.RandomStateHook'))
custom_hooks = {hooks!r}
env_cfg = dict(dist_cfg=dict(backend='nccl', timeout={timeout}))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=4)
"""


@HOOKS.register_module()
class Disturb(Hook):
    """Ends or stops a process in an iteration of the first attempt, counted from 0.

    ``how`` is the name of a signal, or 'error', 'full' (the disk) or 'exit'.
    """

    priority = 'VERY_HIGH'

    def __init__(self, rank: int, iteration: int, how: str) -> None:
        self.rank, self.iteration, self.how = rank, iteration, how

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        first = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0'
        if not first or (runner.rank, runner.iter) != (self.rank, self.iteration):
            return
        if self.how == 'error':
            raise ZeroDivisionError('a bug in the data')
        if self.how == 'full':
            from addp_mm.checkpoints.atomic_write import FileWriteError

            raise FileWriteError('iter_3.pth cannot be written (No space left on device)')
        os.kill(os.getpid(), getattr(signal, self.how))


def write_config(folder: Path, *hooks: dict, timeout: float = 20, name: str = 'config') -> Path:
    """A config file of a predictor, with 24 stored views in the folder."""
    if not (folder / 'ids').exists():
        settings = dict(tokenizer={}, images={}, views={}, shard=dict(index=0, of=1))
        writer = TokenWriter(folder / 'ids', settings, (24, 1, 16), 'uint16')
        writer.write(np.random.default_rng(0).integers(0, SPACE['codebook_size'], (24, 1, 16)), {})
        writer.save()
    predictor = dict(MODEL['predictor'], drop_rate=0.1)
    model = dict(type='addp_mm.PredictorPretrain', tokenizer=None, predictor=predictor, drop_ratio=0.5)
    path = folder / f'{name}.py'
    path.write_text(CONFIG.format(model=model, ids=str(folder / 'ids'), hooks=list(hooks), timeout=timeout))
    return path


def run_tool(name: str, arguments: list, log: Path) -> None:
    """Run a tool in this process, which is one of several, and write its output into a file."""
    sys.stdout = sys.stderr = open(log, 'a', buffering=1)  # noqa: SIM115  # until the process ends
    for number in (1, 2):
        os.dup2(sys.stdout.fileno(), number)
    sys.argv = [f'{name}.py', *map(str, arguments), '--launcher', 'pytorch']
    runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')


def _rank(rank: int, port: int, name: str, arguments: list, log: Path) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)
    )
    run_tool(name, arguments, log)


def run_two(folder: Path, *arguments, name: str = 'train') -> list[tuple[int | None, str, float]]:
    """Run a tool on two processes without a launcher, so that rank 0 contains the store.

    A stopped process is killed when the other one has ended.

    Returns:
        Exit status, output, and seconds until the end of each process; no status if it was stopped.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    logs = [folder / f'{name}_{rank}.log' for rank in range(2)]
    context, start = multiprocessing.get_context('fork'), time.monotonic()
    processes = [context.Process(target=_rank, args=(rank, port, name, arguments, logs[rank])) for rank in range(2)]
    for process in processes:
        process.start()
    ended: dict[int, float] = {}
    while len(ended) < 2 and time.monotonic() - start < SECONDS:
        for rank, process in enumerate(processes):
            if not process.is_alive():
                ended.setdefault(rank, time.monotonic() - start)
        if ended and all(_is_stopped(process.pid) for rank, process in enumerate(processes) if rank not in ended):
            break
        time.sleep(0.02)
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return [
        (statuses[rank], logs[rank].read_text(errors='replace'), ended.get(rank, float('inf'))) for rank in range(2)
    ]


def _is_stopped(pid: int | None) -> bool:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'T'


def _train(arguments: list, log: Path) -> None:
    """Train in a child: the agent waits for a result of its processes, and the tool has none."""
    child = os.fork()
    if child == 0:
        run_tool('train', arguments, log)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if status != -signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    if status:
        sys.exit(status)


def _launch(arguments: list, log: Path, max_restarts: int) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from addp_mm.torchrun import describe, first_failure

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=str(os.getpid()),
        rdzv_backend='c10d',
        rdzv_endpoint='localhost:0',
        max_restarts=max_restarts,
        start_method='fork',
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, _train)(arguments, log)
    except ChildFailedError as error:
        rank = first_failure(error.failures)
        with open(log, 'a') as file:
            file.write(describe(rank, error.failures[rank], len(error.failures)) + '\n')
        sys.exit(1)


def launch_two(log: Path, *arguments, max_restarts: int = 0) -> tuple[int | None, str]:
    """Run tools/train.py under torchrun's agent; return the exit status and the output of all."""
    process = multiprocessing.get_context('fork').Process(target=_launch, args=(arguments, log, max_restarts))
    process.start()
    process.join(SECONDS)
    process.kill()
    process.join()
    return process.exitcode, log.read_text(errors='replace')
