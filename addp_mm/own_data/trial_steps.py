# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the batch that fits into memory and the seconds of a step, by trial steps on random data.

Run by tools/pretrain_from_folder.py. On a GPU the batch is halved until a step fits. On a CPU,
where too large a batch ends the process, it is doubled as long as the measured growth allows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
# Shares of the free memory that a training may use.
_GPU_SHARE, _CPU_SHARE = 0.9, 0.7
# Once a step on a CPU takes so many seconds, larger batches are extrapolated and not tried.
_SLOW_SECONDS = 15.0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'spec',
        type=Path,
        help='JSON file: number of processes; by stage its config, the batch of a process and the shape of an image. '
        'A stage without a batch is built and takes no step',
    )
    parser.add_argument('out', type=Path, help='JSON file to write: parameters of each stage; batch, seconds and MiB')
    return parser.parse_args(argv)


def available_memory(meminfo: Path = Path('/proc/meminfo'), cgroup: Path = Path('/sys/fs/cgroup')) -> int:
    """Free bytes of RAM: of the machine, or of the control group if fewer."""
    found = []
    try:
        lines = dict(line.split(':', 1) for line in meminfo.read_text().splitlines() if ':' in line)
        found.append(int(lines['MemAvailable'].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        found.append(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2)
    for limit, used in (
        ('memory.max', 'memory.current'),
        ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'),
    ):
        with contextlib.suppress(OSError, ValueError):
            found.append(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
    return max(0, min(found))


def peak_memory() -> int:
    """Peak memory of this process in bytes; on Linux since the last :func:`reset_peak_memory`."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
        return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024
    except (OSError, StopIteration):
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def reset_peak_memory() -> None:
    """Let :func:`peak_memory` measure from now on, if the system allows it."""
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


class Trial:
    """Model and optimizer of a stage, for single steps.

    Args:
        cfg: Config of the stage: ``model``, ``optim_wrapper``, ``default_scope``,
            ``custom_imports``.
        shape: Shape of an image, (C, H, W), or of the ids of an image, (L,).
        device: Where to train.
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
            # Late in the training of a tokenizer all terms of its loss count.
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
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.monotonic() - started


def _without_weights(node: Any) -> Any:
    """A model's config without ``init_cfg``: the weights do not exist yet, and need no time.

    A perceptual loss keeps its ``init_cfg``: it does not compute without weights.
    """
    if isinstance(node, dict):
        return {
            key: value if key == 'perceptual' else _without_weights(value)
            for key, value in node.items()
            if key != 'init_cfg'
        }
    return [_without_weights(value) for value in node] if isinstance(node, (list, tuple)) else node


def fit_on_gpu(trial: Trial, batch: int) -> tuple[int, float, int]:
    """Halve the batch until a step fits.

    Args:
        trial: Takes the steps.
        batch: The largest batch to try.

    Returns:
        Batch, seconds of a step, and peak memory in bytes.
    """
    free, _ = torch.cuda.mem_get_info()
    limit = _GPU_SHARE * (free + torch.cuda.memory_reserved())
    while True:
        try:
            torch.cuda.reset_peak_memory_stats()
            trial.step(batch)
            seconds, peak = trial.step(batch), torch.cuda.max_memory_reserved()
            if peak <= limit:
                return batch, seconds, peak
        except torch.cuda.OutOfMemoryError:
            pass
        trial.optim_wrapper.zero_grad()
        torch.cuda.empty_cache()
        if batch == 1:
            raise SystemExit(
                f'error: a single image does not fit into {limit / MIB:,.0f} MiB of GPU memory: choose a smaller '
                '--size or --img-size'
            )
        batch = math.ceil(batch / 2)


def fit_on_cpu(trial: Trial, batch: int, limit: float) -> tuple[int, float, float]:
    """Double the batch, from one image up to ``batch``, as long as memory allows.

    Args:
        trial: Takes the steps.
        batch: The largest batch to try.
        limit: Bytes that this process may use.

    Returns:
        Batch, seconds of a step, and peak memory in bytes.
    """
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))
    sizes.reverse()
    trial.step(1)
    reset_peak_memory()
    seconds, peak, done = trial.step(sizes[0]), float(peak_memory()), sizes[0]
    per_image = 0.0
    for size in sizes[1:]:
        # Before the first growth is measured, an image may need as much as the whole process.
        expected = peak + (per_image or peak) * (size - done)
        if expected > limit:
            break
        if per_image and seconds * size / done > _SLOW_SECONDS:
            seconds, peak, done = seconds * size / done, expected, size
            continue
        reset_peak_memory()
        now = trial.step(size)
        new = peak_memory()
        per_image = max((new - peak) / (size - done), peak * 1e-4)
        seconds, peak, done = now, max(new, peak), size
    return done, seconds, peak


def try_batches(trial: Trial, batch: int, processes: int) -> dict:
    """Find the batch, at most ``batch``; returns ``batch``, ``seconds`` of a step and ``mib``."""
    peak: float
    if trial.device.type == 'cuda':
        batch, seconds, peak = fit_on_gpu(trial, batch)
    else:
        share = _CPU_SHARE / processes
        batch, seconds, peak = fit_on_cpu(trial, batch, peak_memory() + share * available_memory())
    print(f'a step of {batch} images takes {seconds:.2f} s and {peak / MIB:,.0f} MiB', flush=True)
    return dict(batch=batch, seconds=seconds, mib=peak / MIB)


def main(argv: list[str] | None = None) -> None:
    """Try all stages of the spec and write the result."""
    from addp_mm.checkpoints.atomic_write import write_json

    args = parse_args(argv)
    spec, found = json.loads(args.spec.read_text()), {}
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for stage, asked in spec['stages'].items():
        trial = Trial(asked['cfg'], asked['shape'], device)
        found[stage] = dict(parameters=trial.parameters)
        print(f'{stage}: {trial.parameters / 1e6:.1f} M parameters', flush=True)
        if asked['batch']:
            found[stage].update(try_batches(trial, asked['batch'], spec['processes']))
        del trial
        if device.type == 'cuda':
            torch.cuda.empty_cache()
    write_json(args.out, found)


if __name__ == '__main__':
    main()
