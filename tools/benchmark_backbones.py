# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare backbones under the same head and data: cost, speed and, if asked, metrics.

Parameters and operations are counted. Speed and memory are measured on synthetic images with random
weights, in turns between which the backbones alternate; no data is needed. With --train, every
backbone is fine-tuned and tested with several seeds. Finished measurements in the work dir are not
repeated, so that you can give the same command again after an interruption.
"""

import argparse
import shlex
import sys
from datetime import date
from pathlib import Path

from addp_mm.cli_options import add_cfg_options, add_device_option, aligned, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = dict(nargs='+', action='extend', metavar='NAME')
    parser.add_argument(
        '--backbones',
        **names,
        help='names of the zoo, timm:MODEL, a checkpoint, or names of a listing [all of the listings for the data]',
    )
    parser.add_argument('--task', **names, help='cls, det, seg [all tasks of the data]')
    parser.add_argument(
        '--data',
        **names,
        help='imagenet, coco, ade20k, fashion_scenes [imagenet for cls, coco for det, ade20k for seg]',
    )
    parser.add_argument(
        '--data-root',
        nargs='+',
        action='extend',
        default=[],
        metavar='FOLDER|DATA=FOLDER',
        help='folder of the data [as in the configs]',
    )
    parser.add_argument(
        '--listing',
        nargs='+',
        action='extend',
        default=[],
        type=Path,
        metavar='FILE.yml',
        help='configs that stand for backbones, by data and task (docs/benchmark_backbones.md)',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmark'), help='folder of all results [work_dirs/benchmark]'
    )
    speed = parser.add_argument_group('speed and memory')
    speed.add_argument('--repeats', type=number(int, 0), default=3, help='turns of each backbone; 0: no timing [3]')
    speed.add_argument('--steps', type=number(int, 1), default=10, help='timed steps in a turn [10]')
    speed.add_argument('--warmup', type=number(int, 0), default=3, help='untimed steps before each turn [3]')
    speed.add_argument('--batch-size', type=number(int, 1), help="images in a step [the configs' on one GPU]")
    speed.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    add_device_option(speed)
    metric = parser.add_argument_group('metrics')
    metric.add_argument('--train', action='store_true', help='fine-tune and test each backbone')
    metric.add_argument('--seeds', type=number(int, 0, 2**32 - 1), nargs='+', action='extend', help='seeds [0 1 2]')
    metric.add_argument('--max-iters', type=number(int, 1), help='end each training after so many iterations')
    metric.add_argument('--jobs', type=number(int, 1), default=1, metavar='N', help='trainings that run at once [1]')
    add_cfg_options(parser, 'every config')
    return parser.parse_args(argv)


def data_roots(given, data):
    """Folders of data sets by name, from ``--data-root``.

    Raises:
        ConfigError: A name is not in use, or a folder does not say whose it is.
    """
    from addp_mm.errors import ConfigError, suggest

    roots = {}
    for text in given:
        name, sign, folder = text.partition('=')
        if not sign:
            if len(data) > 1:
                raise ConfigError(f'--data-root {text}: say of which data: {data[0]}={text}')
            name, folder = data[0], text
        if name not in data:
            raise ConfigError(f'--data-root {text}: --data has no {name}{suggest(name, data)}')
        if name in roots:
            raise ConfigError(f'--data-root {name} is given twice')
        roots[name] = Path(folder).expanduser()
    return roots


def make_benchmark(args):
    """Check the options, lock the work dir, and write the configs of swaps."""
    from addp_mm.benchmark.backbones import Choice
    from addp_mm.benchmark.benchmark import Benchmark
    from addp_mm.benchmark.choose_data import choose_data, refuse_repeats
    from addp_mm.benchmark.listing import read_listings
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.errors import ConfigError
    from addp_mm.folder_lock import lock_folder

    refuse_repeats('--seeds', args.seeds or [])
    for option, value in (('--seeds', args.seeds), ('--max-iters', args.max_iters)):
        if value is not None and not args.train:
            raise ConfigError(f'{option} has no effect without --train')
    pairs = choose_data(args.data or [], args.task or [])
    listing = read_listings(args.listing)
    data = list(dict.fromkeys(name for name, _ in pairs))
    backbones = args.backbones or list(dict.fromkeys(name for one in data for name in listing.get(one, {})))
    if not backbones:
        raise ConfigError('--backbones: give at least one name')
    roots = data_roots(args.data_root, data)
    require_writable_folder(args.work_dir, '--work-dir')
    lock = lock_folder(args.work_dir)
    choice = Choice(backbones, pairs, listing, args.work_dir / 'configs', tuple(args.cfg_options or ()), roots)
    return Benchmark(choice.contestants(), args.work_dir, args.jobs, [lock.fileno()]), lock


def about_run(args, argv):
    """What the reports say about the run."""
    from addp_mm.benchmark.tables import About
    from addp_mm.report.machine import machine_class, versions

    names = ('repeats', 'steps', 'warmup', 'device', 'jobs')
    options = {name: getattr(args, name) for name in names}
    if args.train:
        options |= dict(seeds=args.seeds, max_iters=args.max_iters)
    command = shlex.join(['addp', 'benchmark', *argv])
    return About(command, machine_class(), versions(), options, date.today().isoformat())


def show(benchmark) -> None:
    """Print the tables."""
    from addp_mm.benchmark.tables import group_title, groups, table

    for (data, task), rows in groups(benchmark.rows).items():
        header, cells = table(rows)
        print(f'\n{group_title(data, task)}\n{aligned([header, *cells], " | ", numbers=True)}')
    show_failures(benchmark)


def show_failures(benchmark) -> None:
    """Print what failed."""
    from addp_mm.benchmark.tables import failures

    for line in failures(benchmark.rows):
        print(f'failed: {line}', flush=True)


def main(argv=None):
    """Run the tool."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    from addp_mm.benchmark.benchmark import Training
    from addp_mm.benchmark.measuring import Timing
    from addp_mm.engine.device import choose_device
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with (
        exit_on_interrupt(f'finished measurements are in {args.work_dir}; the same command goes on'),
        exit_on_user_error(),
    ):
        args.device = str(choose_device(args.device))
        args.seeds = args.seeds or ([0, 1, 2] if args.train else None)
        benchmark, lock = make_benchmark(args)
        show_failures(benchmark)
        about = about_run(args, argv)
        if args.train:
            benchmark.check_data()
        timing = Timing(args.repeats, args.steps, args.warmup, args.device)
        benchmark.measure(timing, args.batch_size, args.img_size and tuple(args.img_size))
        paths = benchmark.write(about)
        if args.train:
            benchmark.train(Training(args.seeds, args.max_iters))
            paths = benchmark.write(about)
        lock.close()
    show(benchmark)
    print('\n'.join(f'wrote {path}' for path in paths))
    if any(row.failures for row in benchmark.rows):
        sys.exit(1)


if __name__ == '__main__':
    main()
