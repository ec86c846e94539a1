# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time training steps of one or more configs side by side on made-up images: step time, images a second, peak memory.

Models start from random weights; no data and no checkpoint is read. The configs' own optimizer
wrappers are used, with one update a step. Rounds alternate between the configs, so that a machine
that slows down does so for all of them.
"""

import argparse
import statistics
import time
from contextlib import nullcontext


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config file')
    parser.add_argument('--batch', type=int, help="images a step [the config's on one GPU]")
    parser.add_argument('--shape', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]')
    parser.add_argument('--rounds', type=int, default=3, help='rounds over all configs [3]')
    parser.add_argument('--steps', type=int, default=10, help='timed steps of a round [10]')
    parser.add_argument('--warmup', type=int, default=3, help='steps before each round that are not timed [3]')
    parser.add_argument('--device', help='cuda, cuda:1, cpu [cuda where there is one]')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change settings of every config')
    args = parser.parse_args(argv)
    for option, least in (('rounds', 1), ('steps', 1), ('warmup', 0), ('batch', 1)):
        value = getattr(args, option)
        if value is not None and value < least:
            parser.error(f'--{option} must be {least} or more, got {value}')
    return args


class Contestant:
    """A config's model and optimizer on the device, and the times of its steps."""

    def __init__(self, path: str, args) -> None:
        from addp_mm.analysis.batches import build_model, fix_proposals, precision_of, synthetic_batch, training_size
        from addp_mm.config.config_file import ConfigError, load_config

        self.cfg = load_config(path, args.cfg_options)
        if not self.cfg.get('optim_wrapper'):
            raise ConfigError(f'{path} trains nothing: it has no optim_wrapper')
        self.name, self.device = path, args.device
        self.size = tuple(args.shape or training_size(self.cfg))
        self.images = args.batch or self.cfg.train_dataloader.batch_size
        self.precision = precision_of(self.cfg)
        self.times: list[float] = []
        self.peak = 0
        self.model = fix_proposals(build_model(self.cfg)).to(self.device).train()
        self.batch = synthetic_batch(self.cfg, self.images, self.size)
        self.optimizer = self._optimizer()

    def _optimizer(self):
        """The config's, but for accumulation: a step is one update."""
        import copy

        from mmengine.optim import build_optim_wrapper

        from addp_mm.analysis.batches import scope_of

        settings = copy.deepcopy(self.cfg.optim_wrapper)
        settings.pop('accumulative_counts', None)
        with scope_of(self.cfg):
            return build_optim_wrapper(self.model, settings)

    def step(self) -> float:
        """Seconds of one step: preprocessor, forward and backward pass, update."""
        import torch

        from addp_mm.analysis.batches import scope_of

        on_gpu = self.device.startswith('cuda')
        synchronize = torch.cuda.synchronize if on_gpu else nullcontext
        synchronize()
        start = time.perf_counter()
        with scope_of(self.cfg):
            self.model.train_step(dict(self.batch), self.optimizer)
        synchronize()
        if on_gpu:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())
        return time.perf_counter() - start

    def round(self, warmup: int, steps: int) -> None:
        """A round of this config's own; the peak of memory is its own too."""
        import torch

        if self.device.startswith('cuda'):
            torch.cuda.reset_peak_memory_stats()
        for _ in range(warmup):
            self.step()
        self.times += [self.step() for _ in range(steps)]

    def report(self) -> str:
        """A line of the table."""
        median, spread = statistics.median(self.times), statistics.pstdev(self.times)
        memory = f'{self.peak / 2**30:.2f}' if self.peak else 'not measured'
        return (
            f'| {self.name} | {self.images} x {self.size[0]} x {self.size[1]} | {self.precision} | '
            f'{median * 1e3:.1f} ± {spread * 1e3:.1f} | {self.images / median:.2f} | {memory} |'
        )


def machine(device: str) -> str:
    """What was measured on."""
    import platform

    import torch

    name = (
        torch.cuda.get_device_name(device)
        if device.startswith('cuda')
        else (f'{torch.get_num_threads()} CPU thread(s), {platform.machine()}; not measured on a GPU')
    )
    return f'{name}; torch {torch.__version__}, Python {platform.python_version()}'


def main(argv=None):
    args = parse_args(argv)
    import torch

    from addp_mm.errors import reported_in_words

    with reported_in_words():
        args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
        if args.device.startswith('cuda') and not torch.cuda.is_available():
            from addp_mm.config.config_file import ConfigError

            raise ConfigError(f'--device {args.device}: PyTorch finds no GPU here; use --device cpu')
        torch.manual_seed(0)
        contestants = [Contestant(path, args) for path in args.configs]
        for _ in range(args.rounds):
            for contestant in contestants:
                contestant.round(args.warmup, args.steps)
    print(f'{machine(args.device)}; median ± standard deviation of {args.rounds * args.steps} steps')
    if len(contestants) > 1 and args.device.startswith('cuda'):
        print('peak memory includes the other configs, which stay on the GPU: measure it with one config at a time')
    print('| config | images x height x width | precision | ms a step | images/s | peak memory, GiB |')
    print('|---|---|---|---|---|---|')
    for contestant in contestants:
        print(contestant.report())


if __name__ == '__main__':
    main()
