# Copyright (c) addp_mm contributors. Apache-2.0.
"""Take a few training steps of each stage on random pictures, to find out which batch fits into memory, and how long a
step takes. Run by tools/pretrain_from_folder.py.

On a GPU the batch is halved until a step goes without running out of memory. On a CPU, where
running out of memory ends the process, batches double from one image on as long as the growth says
that the next one fits.
"""

import argparse
import contextlib
import json
import math
import os
import time
from pathlib import Path

MIB = 2**20
# shares of the memory found that a training may take
_GPU_SHARE, _CPU_SHARE = 0.9, 0.7
# seconds of a step on a CPU from which on larger batches are not tried but reckoned
_SLOW = 15.0


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'spec',
        type=Path,
        help='JSON: config, batch of a step on one process and shape of an image of '
        'each stage, and the number of processes on this machine; without a batch, a stage is built '
        'and takes no step',
    )
    parser.add_argument('out', type=Path, help='JSON to write: parameters of each stage; batch, seconds and MiB')
    return parser.parse_args(argv)


def available_memory(meminfo='/proc/meminfo', cgroup='/sys/fs/cgroup'):
    """Bytes of RAM that this process may still take: what the machine has left, or its control group allows."""
    found = []
    try:
        lines = dict(line.split(':', 1) for line in Path(meminfo).read_text().splitlines() if ':' in line)
        found.append(int(lines['MemAvailable'].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        found.append(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2)
    for limit, used in (
        ('memory.max', 'memory.current'),
        ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'),
    ):
        try:
            found.append(int(Path(cgroup, limit).read_text()) - int(Path(cgroup, used).read_text()))
        except (OSError, ValueError):
            continue
    return max(0, min(found))


def peak_memory():
    """Most bytes that this process has held, since :func:`forget_peak` where the system allows it."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
        return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024
    except (OSError, StopIteration):
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def forget_peak():
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def smaller(batch):
    """The next smaller batch of which two make up this one."""
    return math.ceil(batch / 2)


class Trial:
    """A stage's model and optimizer, for single steps.

    Args:
        cfg (dict): Config of the stage.
        shape (list[int]): Shape of an image, (C, H, W), or of a row of ids, (L).
        device (torch.device): Where to train.
    """

    def __init__(self, cfg, shape, device):
        from mmengine.config import Config
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope
        from mmengine.utils import import_modules_from_strings

        from addp_mm.registry import MODELS

        cfg = Config(cfg)
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        self.shape, self.device = shape, device
        model = MODELS.build(_without_weights(cfg.model.to_dict()))
        perceptual = getattr(model, 'perceptual', None)
        if hasattr(perceptual, 'init_weights'):
            perceptual.init_weights()
        self.model = model.to(device).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        if hasattr(self.model, 'iteration') and hasattr(self.model, 'quantize_from'):
            # late in the training all parts of a tokenizer's loss count
            late = 1 + max(self.model.quantize_from, getattr(getattr(self.model, 'schedule', None), 'counts_from', 0))
            self.model.iteration.fill_(late * getattr(self.model, 'r1_interval', 1))

    def step(self, batch):
        """A step on random data; returns seconds."""
        import torch

        high = 256 if len(self.shape) == 3 else self.model.codebook_size
        dtype = torch.uint8 if len(self.shape) == 3 else torch.int64
        data = dict(inputs=torch.randint(high, (batch, *self.shape), dtype=dtype))
        if len(self.shape) == 3:
            data['data_samples'] = None
        started = time.monotonic()
        self.model.train_step(data, self.optim_wrapper)
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.monotonic() - started


def _without_weights(node):
    """A model's config without init_cfg: the weights are not there yet, and steps take as long without.

    Those of a perceptual loss are no stage's work, and it does not compute without them.
    """
    if isinstance(node, dict):
        return {
            key: value if key == 'perceptual' else _without_weights(value)
            for key, value in node.items()
            if key != 'init_cfg'
        }
    return [_without_weights(value) for value in node] if isinstance(node, (list, tuple)) else node


def fit_on_gpu(trial, batch):
    """Halve until a step fits; returns batch, seconds of a step and bytes."""
    import torch

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
            peak = limit
        trial.optim_wrapper.zero_grad()
        torch.cuda.empty_cache()
        if batch == 1:
            raise SystemExit(
                f'error: a single image does not fit into {limit / MIB:,.0f} MiB of GPU memory: choose a '
                'smaller --size or --image-size'
            )
        batch = smaller(batch)


def fit_on_cpu(trial, batch, limit):
    """Double up to ``batch`` while memory allows; returns batch, seconds of a step and bytes."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(smaller(sizes[-1]))
    sizes.reverse()
    trial.step(1)
    forget_peak()
    seconds, peak, done = trial.step(sizes[0]), peak_memory(), sizes[0]
    each = 0.0
    for size in sizes[1:]:
        # of the first growth nothing is known but that it is less than all there is
        expected = peak + (each or peak) * (size - done)
        if expected > limit:
            break
        if seconds * size / done > _SLOW and each:
            seconds, peak, done = seconds * size / done, expected, size
            continue
        forget_peak()
        now = trial.step(size)
        new = peak_memory()
        each = max((new - peak) / (size - done), peak * 1e-4)
        seconds, peak, done = now, max(new, peak), size
    return done, seconds, peak


def try_batches(trial, batch, processes):
    """Find the largest batch up to ``batch``; returns it, seconds of a step and MiB, by name."""
    if trial.device.type == 'cuda':
        batch, seconds, peak = fit_on_gpu(trial, batch)
    else:
        share = _CPU_SHARE / processes
        batch, seconds, peak = fit_on_cpu(trial, batch, peak_memory() + share * available_memory())
    print(f'{batch} images at once take {seconds:.2f} s and {peak / MIB:,.0f} MiB', flush=True)
    return dict(batch=batch, seconds=seconds, mib=peak / MIB)


def main(argv=None):
    args = parse_args(argv)
    import torch

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
    partial = args.out.with_suffix('.partial')
    partial.write_text(json.dumps(found, indent=2))
    partial.replace(args.out)


if __name__ == '__main__':
    main()
