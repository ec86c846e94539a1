# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count the images a second that a config's data loader delivers, by numbers of workers and cores.

The loader is that of training, without a model. Workers are started before each turn and stop after
it, so that those of one case do not disturb another; the batches that they have prepared by then
are not timed. With --made-up, JPEG files of random content replace the images of the config.
"""

import argparse
import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, add_timing_options, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config file, or addp_mm::NAME')
    parser.add_argument(
        '--num-workers',
        nargs='+',
        action='extend',
        type=number(int, 0),
        help="numbers of worker processes [0, 1, and the config's]",
    )
    parser.add_argument(
        '--cores',
        nargs='+',
        action='extend',
        type=number(int, 1),
        help='numbers of CPU cores that the loader and its workers share; only on Linux [all]',
    )
    parser.add_argument('--batch-size', type=number(int, 1), help="images in a batch [the config's]")
    parser.add_argument('--batches', type=number(int, 1), default=20, help='batches of a timed step [20]')
    parser.add_argument(
        '--made-up', type=number(int, 1), metavar='COUNT', help='write so many JPEG files and read them'
    )
    parser.add_argument(
        '--made-up-size',
        type=number(int, 8),
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        default=(375, 500),
        help='their pixels [375 500, as most of ImageNet]',
    )
    add_timing_options(parser)
    add_cfg_options(parser)
    return parser.parse_args(argv)


def write_images(folder, count, size, seed):
    """Write JPEG files of random content."""
    import numpy as np

    from addp_mm.benchmark.made_up_jpeg import made_up_jpeg

    rng = np.random.default_rng(seed)
    for index in range(count):
        (folder / f'{index:06d}.jpg').write_bytes(made_up_jpeg(size, rng))


def check_cores(wanted):
    """Refuse numbers of cores that this machine cannot give."""
    from addp_mm.errors import ConfigError
    from addp_mm.report.machine import cores

    if wanted and not hasattr(os, 'sched_setaffinity'):
        raise ConfigError('--cores: this system cannot limit the cores of a process. Leave it out')
    if wanted and max(wanted) > cores():
        raise ConfigError(f'--cores {max(wanted)}: this process may use {cores()}')


@contextlib.contextmanager
def limited_cores(count):
    """Let this process and those that it starts use so many cores; None: all."""
    if count is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Reading:
    """The batches of a loader with some number of workers.

    Args:
        loader: Config of the data loader.
        workers: Number of workers.
        cores: CPU cores that this process and the workers share. None: all.
        batches: Batches that a call reads.
        seed: Seed of the order.
    """

    def __init__(self, loader, workers, cores, batches, seed):
        from mmengine.runner import Runner

        loader = dict(loader, num_workers=workers, persistent_workers=False)
        if not workers:
            loader.pop('prefetch_factor', None)
        self.loader = Runner.build_dataloader(loader, seed=seed)
        self.cores, self.batches, self.iterator = cores, batches, None
        self.limits = contextlib.ExitStack()

    def needed_batches(self):
        """Batches that a turn reads."""
        return self._prepared() + self.batches

    def begin(self):
        """Start the workers, and read the batches that they prepare meanwhile."""
        self.limits.enter_context(limited_cores(self.cores))
        self.iterator = iter(self.loader)
        for _ in range(self._prepared()):
            self._next()

    def __call__(self):
        """Read some batches."""
        for _ in range(self.batches):
            self._next()

    def end(self):
        """Stop the workers."""
        self.iterator = None
        self.limits.close()

    def _prepared(self):
        return (self.loader.prefetch_factor or 0) * self.loader.num_workers

    def _next(self):
        try:
            next(self.iterator)
        except StopIteration:
            self.iterator = iter(self.loader)
            next(self.iterator)


def cases(cfg, args):
    """A case for each number of workers and of cores."""
    from addp_mm.benchmark.paired_times import Case

    loader = cfg.train_dataloader
    loader.batch_size = args.batch_size or loader.batch_size
    every_workers = args.num_workers or dict.fromkeys((0, 1, loader.num_workers))
    for cores, workers in itertools.product(args.cores or [None], every_workers):
        reading = Reading(loader, workers, cores, args.batches, args.seed)
        if reading.needed_batches() > len(reading.loader):
            print(f'{workers} workers: the data end within a timed step, which then waits for new workers')
        images = args.batches * loader.batch_size
        name = f'{workers} workers' + (f', {cores} core{"s" * (cores > 1)}' if cores else '')
        yield Case(name, reading, images=images, count=lambda: 0, begin=reading.begin, end=reading.end)


def main(argv=None):
    """Measure, print the table, and write it."""
    args = parse_args(argv)
    from addp_mm.analysis.batches import scope_of
    from addp_mm.benchmark.timed_tool import Group, measure_groups, prepare
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error(), contextlib.ExitStack() as stack:
        prepare(args)
        check_cores(args.cores)
        cfg = load_config(args.config, args.cfg_options, argument_kinds)
        stack.enter_context(scope_of(cfg))
        title = f'Data pipeline of {args.config}'
        if args.made_up:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='addp_images_')))
            write_images(folder, args.made_up, tuple(args.made_up_size), args.seed)
            pipeline = cfg.train_dataloader.dataset.pipeline
            made_up = dict(type='addp_mm.ImageFiles', root=str(folder), pipeline=pipeline, work_dir=str(folder))
            cfg.train_dataloader.dataset = made_up
            title += f', {args.made_up} files of {args.made_up_size[0]} x {args.made_up_size[1]} px'
        measure_groups(title, [Group(title, list(cases(cfg, args)))], args, with_memory=False)


if __name__ == '__main__':
    main()
