# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the batch size that fits into memory and the time of a step, by trial steps.

tools/pretrain_from_folder.py runs it, with random data. On a GPU the batch is halved until a step
fits. On a CPU a batch that is too large would end the process; there the batch is computed from the
memory of two small steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from addp_mm.analysis.peak_memory import reset_resident_peak, resident_peak
from addp_mm.devices import default_device, empty_cache, is_accelerator, memory_statistics, synchronize

MIB = 2**20
# shares of the free memory that a training may use
_GPU_SHARE, _CPU_SHARE = 0.9, 0.7
# number of images of the second step on a CPU
_FEW = 4


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'spec',
        type=Path,
        help='JSON file: number of processes; by stage its config, the batch of a process and the shape of an image. '
        'A stage without a batch is built but runs no step',
    )
    parser.add_argument('out', type=Path, help='JSON file to write: parameters of each stage; batch, seconds and MiB')
    return parser.parse_args(argv)


def available_memory(meminfo: Path = Path('/proc/meminfo'), cgroup: Path = Path('/sys/fs/cgroup')) -> int:
    """Free bytes of RAM of the machine, or of the control group if it has less; on Linux."""
    free = 1024 * int(re.findall(r'MemAvailable:\s*(\d+)', meminfo.read_text())[0])
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        limit = int((cgroup / 'memory.max').read_text())
        free = min(free, limit - int((cgroup / 'memory.current').read_text()))
    return max(0, free)


class Trial:
    """Model and optimizer of a stage, for single steps.

    Args:
        cfg: Config of the stage: ``model``, ``optim_wrapper``, ``default_scope``,
            ``custom_imports``.
        shape: Shape of an image, (C, H, W), or of the ids of an image, (L,).
        device: Device of the model.
    """

    def __init__(self, cfg: dict, shape: Sequence[int] | None, device: torch.device) -> None:
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope
        from mmengine.utils import import_modules_from_strings

        from addp_mm.registry import MODELS

        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg['custom_imports'])
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        self.shape, self.device = shape, device
        model = MODELS.build(_without_weights(cfg['model']))
        perceptual: Any = getattr(model, 'perceptual', None)
        if hasattr(perceptual, 'init_weights'):
            perceptual.init_weights()
        self.model = model.to(device).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg['optim_wrapper'])
        self.parameters = sum(p.numel() for p in self.model.parameters())
        if hasattr(self.model, 'iteration') and hasattr(self.model, 'quantize_from'):
            # late in the training of a tokenizer all terms of its loss are active
            late = 1 + max(self.model.quantize_from, getattr(getattr(self.model, 'schedule', None), 'counts_from', 0))
            self.model.iteration.fill_(late * getattr(self.model, 'r1_interval', 1))

    def step(self, batch: int) -> float:
        """Train on ``batch`` random images; returns the seconds that it took."""
        assert self.shape is not None
        data: dict[str, Any]
        if len(self.shape) == 3:
            # SelfSupDataPreprocessor needs both keys, in this order.
            data = dict(inputs=torch.randint(256, (batch, *self.shape), dtype=torch.uint8), data_samples=None)
        else:
            data = dict(inputs=torch.randint(self.model.codebook_size, (batch, *self.shape)))
        started = time.monotonic()
        self.model.train_step(data, self.optim_wrapper)
        synchronize(self.device)
        return time.monotonic() - started


def _without_weights(node: Any) -> Any:
    """A model's config without ``init_cfg``: the weights do not exist yet.

    A perceptual loss keeps its ``init_cfg``: it does not work without weights.
    """
    if isinstance(node, dict):
        return {
            key: value if key == 'perceptual' else _without_weights(value)
            for key, value in node.items()
            if key != 'init_cfg'
        }
    return [_without_weights(value) for value in node] if isinstance(node, (list, tuple)) else node


def fit_on_gpu(trial: Trial, batch: int, memory: ModuleType) -> tuple[int, float, int]:
    """Halve the batch until a step fits.

    Args:
        trial: Runs the steps.
        batch: The largest batch to try.
        memory: The module of :func:`~addp_mm.devices.memory_statistics`.

    Returns:
        Batch, seconds of a step, and peak memory in bytes.
    """
    free, _ = memory.mem_get_info()
    limit = _GPU_SHARE * (free + memory.memory_reserved())
    while True:
        try:
            memory.reset_peak_memory_stats()
            trial.step(batch)
            seconds, peak = trial.step(batch), memory.max_memory_reserved()
            if peak <= limit:
                return batch, seconds, peak
        except torch.OutOfMemoryError:
            pass
        trial.optim_wrapper.zero_grad()
        memory.empty_cache()
        if batch == 1:
            raise SystemExit(
                f'error: a single image does not fit into {limit / MIB:,.0f} MiB of GPU memory: choose a smaller '
                '--size or --img-size'
            )
        batch = math.ceil(batch / 2)


def fit_on_cpu(trial: Trial, batch: int, limit: float) -> tuple[int, float, float]:
    """The largest equal part of a batch that fits, by the memory of two small steps.

    Args:
        trial: Runs the steps.
        batch: The largest batch.
        limit: Bytes that this process may use.

    Returns:
        Batch, expected seconds of a step, and expected peak memory in bytes.
    """
    trial.step(1)  # the first step creates the state of the optimizer
    few, peaks, seconds = min(_FEW, batch), [], 0.0
    for images in (1, few):
        reset_resident_peak()
        seconds = trial.step(images)
        peaks.append(resident_peak() or 0)
    one, more = peaks
    per_image = max(1.0, (more - one) / max(1, few - 1))
    most = max(1, int((limit - one) / per_image) + 1)
    batch = math.ceil(batch / math.ceil(batch / most))
    return batch, seconds * batch / few, one + per_image * (batch - 1)


def try_batches(trial: Trial, batch: int, processes: int) -> dict:
    """Find a batch of at most ``batch``; return ``batch``, ``seconds`` of a step and ``mib``."""
    peak: float
    memory = memory_statistics(trial.device)
    if memory is not None:
        batch, seconds, peak = fit_on_gpu(trial, batch, memory)
    elif not is_accelerator(trial.device) and sys.platform == 'linux' and resident_peak() is not None:
        share = _CPU_SHARE / processes
        batch, seconds, peak = fit_on_cpu(trial, batch, (resident_peak() or 0) + share * available_memory())
    else:  # the memory cannot be measured
        seconds, peak = trial.step(batch), 0.0
    print(f'a step of {batch} images takes {seconds:.2f} s and {peak / MIB:,.0f} MiB', flush=True)
    return dict(batch=batch, seconds=seconds, mib=peak / MIB)


def main(argv: list[str] | None = None) -> None:
    """Try all stages of the spec and write the result."""
    from addp_mm.checkpoints.atomic_write import write_json

    args = parse_args(argv)
    spec, found = json.loads(args.spec.read_text()), {}
    device = default_device()
    for stage, asked in spec['stages'].items():
        trial = Trial(asked['cfg'], asked['shape'], device)
        found[stage] = dict(parameters=trial.parameters)
        print(f'{stage}: {trial.parameters / 1e6:.1f} M parameters', flush=True)
        if asked['batch']:
            found[stage].update(try_batches(trial, asked['batch'], spec['processes']))
        del trial
        empty_cache(device)
    write_json(args.out, found)


if __name__ == '__main__':
    main()
