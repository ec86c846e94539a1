# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a training step in two processes on the CPU, and record its collective operations.

``python -m addp_mm.analysis.communication.two_processes FOLDER`` imports the packages once and
forks both processes. Rank 0 writes what it has seen to ``FOLDER/found.json``.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config

from addp_mm.analysis.communication.others import hooks_of
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.errors import UserError
from addp_mm.logged_command import quoted_end, run_logged
from addp_mm.processes import worker_context

_STEPS_OF_DDP = 3  # it makes its buckets in the second one


class RecordingError(UserError, RuntimeError):
    """The two processes ended with an error."""


def record_steps(
    cfg: Config, shardings: Sequence[dict], img_size: tuple[int, int] | None = None
) -> list[list[tuple[str, int]]]:
    """Train a config's model in two processes with gloo, on synthetic images.

    The optimizer is SGD: it exchanges the same as any other.

    Args:
        cfg: Config of a training.
        shardings: For each record: arguments of FullyShardedDataParallel, or {} for
            DistributedDataParallel.
        img_size: Height and width in pixels. Defaults to None: as in training.

    Returns:
        Kind and bytes of the collective operations of a whole step, for each of ``shardings``.

    Raises:
        RecordingError: A process failed.
    """
    with tempfile.TemporaryDirectory(prefix='addp_exchanges_') as name:
        folder = Path(name)
        cfg.dump(folder / 'config.py')
        write_json(folder / 'request.json', dict(shardings=list(shardings), img_size=img_size))
        command = [sys.executable, '-W', 'ignore', '-m', 'addp_mm.analysis.communication.two_processes', name]
        package = str(Path(__file__).parents[3])
        path = os.pathsep.join([package, os.environ.get('PYTHONPATH', '')]).rstrip(os.pathsep)
        log = folder / 'log.txt'
        outcome = run_logged(command, log, dict(PYTHONPATH=path, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'))
        if outcome.status:
            raise RecordingError(f'the two processes failed (exit status {outcome.status}):\n{quoted_end(log)}')
        found = json.loads((folder / 'found.json').read_text())
    return [[(kind, size) for kind, size in record] for record in found]


def main(folder: str) -> None:
    """Start both processes, and wait for them."""
    import torch.multiprocessing

    from addp_mm.analysis.batches import build_model

    cfg = Config.fromfile(Path(folder) / 'config.py')
    build_model(cfg)  # imports the packages before the fork
    gc.collect()
    method = worker_context().get_start_method()
    torch.multiprocessing.start_processes(_process, (Path(folder),), nprocs=2, start_method=method)


def _process(rank: int, folder: Path) -> None:
    import torch

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    request = json.loads((folder / 'request.json').read_text())
    cfg = Config.fromfile(folder / 'config.py')
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    found = []
    for sharding in request['shardings']:
        torch.manual_seed(0)
        found.append(_record(cfg, sharding, request['img_size'], str(folder / 'work_dir')))
        gc.collect()  # models have reference cycles
    if rank == 0:
        write_json(folder / 'found.json', found)
    torch.distributed.destroy_process_group()


def _record(cfg: Config, sharding: dict, img_size: Sequence[int] | None, work_dir: str) -> list[tuple[str, int]]:
    """Collective operations of the last of some steps."""
    from addp_mm.analysis.batches import build_model, pad_to, scope_of, synthetic_batch, training_size
    from addp_mm.analysis.communication.recording import RecordExchanges
    from addp_mm.analysis.training_step import ready_to_train, smallest_batch
    from addp_mm.registry import HOOKS

    cfg = copy.deepcopy(cfg)
    height, width = img_size or training_size(cfg)
    pad_to(cfg, (height, width))
    with scope_of(cfg):
        model = ready_to_train(build_model(cfg))
        batch = synthetic_batch(cfg, smallest_batch(model), (height, width))
        model, optimizer = _wrapped(model, cfg, sharding, work_dir)
        hooks = [HOOKS.build(hook) for hook in hooks_of(cfg)]
        runner = _runner(model, optimizer, work_dir)
        for hook in hooks:
            hook.before_train(runner)
        passes = cfg.optim_wrapper.get('accumulative_counts', 1)
        for _ in range(_steps(sharding)):
            with RecordExchanges() as record:
                for _ in range(passes):
                    for hook in hooks:
                        hook.before_train_iter(runner, 0)
                    outputs = model.train_step(dict(batch), optimizer)
                    for hook in hooks:
                        hook.after_train_iter(runner, 0, outputs=outputs)
    return record.found


def _steps(sharding: dict) -> int:
    return 1 if sharding else _STEPS_OF_DDP


def _wrapped(model: Any, cfg: Config, sharding: dict, work_dir: str) -> tuple[Any, Any]:
    """The model as a training wraps it, and its optimizer."""
    import torch
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import build_optim_wrapper

    from addp_mm.engine.strategies import ShardedStrategy

    settings = copy.deepcopy(cfg.optim_wrapper)
    # Any optimizer exchanges the same. This one needs no memory.
    settings.optimizer = dict(type='SGD', lr=1e-6, weight_decay=0.0)
    passes = _steps(sharding) * settings.get('accumulative_counts', 1)
    if not sharding:
        unused = cfg.get('find_unused_parameters', False)
        optimizer = build_optim_wrapper(model, settings)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)
        optimizer.initialize_count_status(wrapped, 0, passes)
        return wrapped, optimizer
    sharding = copy.deepcopy(sharding)
    if sharding.get('sharding_strategy') == 'HYBRID_SHARD':  # both processes are on one node
        alone = [torch.distributed.new_group([rank]) for rank in range(2)]
        sharding['process_group'] = (torch.distributed.group.WORLD, alone[torch.distributed.get_rank()])
    units = (cfg.get('strategy') or {}).get('units')
    strategy = ShardedStrategy(model_wrapper=sharding, work_dir=work_dir, **(dict(units=units) if units else {}))
    how = dict(init_weights_for_test_or_val=False, cur_iter=0, max_iters=passes)
    strategy.prepare(model, optim_wrapper=settings, dispatch_kwargs=how)
    return strategy.model.train(), strategy.optim_wrapper


def _runner(model: Any, optimizer: Any, work_dir: str) -> Any:
    """What the hooks read of a runner, in the middle of a training."""
    return SimpleNamespace(
        model=model,
        optim_wrapper=optimizer,
        work_dir=work_dir,
        iter=0,
        epoch=0,
        max_iters=sys.maxsize,
        hooks=[],
        _resume=False,
        _load_from=None,
    )


if __name__ == '__main__':
    main(sys.argv[1])
