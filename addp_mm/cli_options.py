# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options that the command line tools share. Imports nothing but the standard library."""

import argparse
import os


def add_renamed(parser: argparse.ArgumentParser, *, old: str, new: str) -> None:
    """Refuse a renamed option with an error of one line that names the new option.

    Args:
        parser: The tool's parser. The old option does not appear in its help.
        old: The old name, such as ``'--workers'``.
        new: The new name, such as ``'--num-workers'``.

    >>> parser = argparse.ArgumentParser(prog='tool')
    >>> add_renamed(parser, old='--workers', new='--num-workers')
    >>> parser.parse_args(['--workers', '4'])  # exits with status 2
    tool: error: --workers was renamed: use --num-workers
    """
    parser.add_argument(old, nargs='*', action=_Renamed, new=new, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that starts a mmengine Runner."""
    parser.add_argument('--seed', type=int, help='seed of all random numbers')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='change settings of the config, for example train_dataloader.batch_size=8',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='what started the processes'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_runner_args(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments of a tool that starts a Runner; set LOCAL_RANK, which mmengine reads.

    Args:
        parser: A parser with the options of :func:`add_runner_options`.
        argv: Command line arguments, or None for those of the process.
    """
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


class _Renamed(argparse.Action):
    """End the process as soon as the old option is read, so that no other error comes first."""

    def __init__(self, *args, new: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.new = new

    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  # argparse gives these
        parser.exit(2, f'{parser.prog}: error: {option_string} was renamed: use {self.new}\n')
