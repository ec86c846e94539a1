# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options that the command line tools share. It imports only the standard library."""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from mmengine.config import Config


class ToolParser(argparse.ArgumentParser):
    """A parser of a tool that takes a config: its error says which configs there are."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        if re.search('required: (config|CONFIG)', message):
            message += '. Give a config file, or the name of a shipped config: addp list prints the names'
        super().error(message)


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


def number(kind: type[int] | type[float], least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """A ``type`` for argparse: a finite number in a range.

    Args:
        kind: ``int`` or ``float``.
        least: The smallest number that is allowed. Defaults to no limit.
        most: The largest number that is allowed. Defaults to no limit.
    """

    def read(text: str) -> float:
        value = kind(text)
        if not (least <= value <= most and abs(value) < math.inf):
            within = f'from {least} to {most}' if math.isfinite(most) else f'at least {least}'
            raise argparse.ArgumentTypeError(f'{text} must be {within if math.isfinite(least) else "finite"}')
        return value

    # argparse prints this name: "invalid int value".
    read.__name__ = kind.__name__
    return read


def aligned(rows: Sequence[Sequence[str]], separator: str = '  ', numbers: bool = False) -> str:
    """Rows of cells as lines of text with aligned columns.

    Args:
        rows: As many cells in each.
        separator: Text between columns. Defaults to two spaces.
        numbers: Whether all columns but the first are numbers, aligned on the right. Defaults to
            False.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ['<', *('>' if numbers else '<') * (len(widths) - 1)]
    return '\n'.join(
        separator.join(f'{cell:{side}{width}}' for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    )


def add_cfg_options(parser: argparse.ArgumentParser, what: str = 'the config') -> None:
    """Add ``--cfg-options``. If it is given several times, all its values count.

    Args:
        parser: The tool's parser.
        what: What the options change, for the help. Defaults to 'the config'.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help=f'change settings of {what}, for example train_dataloader.batch_size=8',
    )


def add_device_option(parser: argparse._ActionsContainer, default: str | None = None) -> None:
    """Add ``--device``, which :func:`addp_mm.engine.device.choose_device` reads.

    Args:
        parser: The tool's parser, or a group of it.
        default: The device without the option. Defaults to None: a GPU if there is one.
    """
    without = default or 'a GPU if there is one, else cpu'
    parser.add_argument('--device', default=default, help=f'cpu, cuda, cuda:1, xpu, mps, ... [{without}]')


def add_timing_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """Add the options of every tool that times cases in turns.

    Args:
        parser: The tool's parser.
        rounds: Default of ``--rounds``. Defaults to 5.
    """
    parser.add_argument(
        '--rounds', type=number(int, 1), default=rounds, help=f'timed steps of each case, in turns [{rounds}]'
    )
    parser.add_argument('--warmup', type=number(int, 0), default=0, help='untimed steps before each timed one [0]')
    add_device_option(parser)
    parser.add_argument('--seed', type=number(int, 0, 2**32 - 1), default=0, help='seed of weights and images [0]')
    parser.add_argument(
        '--matrix-side',
        type=number(int, 1),
        help='side of the matrices whose product gives the matrix rate [2048 on a CPU, 8192 on a GPU]',
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write tables and all times to this file, too')


def add_published_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that times by component, also the published code."""
    parser.add_argument('--no-components', action='store_true', help='time whole steps or runs only')
    parser.add_argument('--published', metavar='DIR', help='folder with the published ADDP code, measured first')
    parser.add_argument(
        '--published-model',
        choices=('addp_vit_base_patch16', 'addp_vit_large_patch16'),
        default='addp_vit_base_patch16',
        help='its model [addp_vit_base_patch16]',
    )


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that starts a mmengine Runner."""
    parser.add_argument('--seed', type=number(int, 0, 2**32 - 1), help='seed of all random numbers')
    add_cfg_options(parser)
    add_launcher_options(parser)


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that runs in several processes."""
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='what started the processes'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_runner_args(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments of a tool with a launcher; set LOCAL_RANK, which mmengine reads.

    Of several processes, PyTorch's C++ code logs errors only: its warnings about a lost connection
    are 20 lines each.

    Args:
        parser: A parser with the options of :func:`add_launcher_options`.
        argv: Command line arguments, or None for those of the process.
    """
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher != 'none':
        os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
    return args


def read_runner_config(args: argparse.Namespace, needed: tuple[str, ...]) -> 'Config':
    """Read and check the config of such a tool; set its launcher, work dir and seed.

    Args:
        args: From :func:`parse_runner_args`, with ``config`` and ``work_dir``.
        needed: Keys that the config must have.

    Raises:
        ConfigError: The config does not exist or has a mistake, or the launcher does not fit.
    """
    from mmengine.registry import init_default_scope

    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.checks.check_list import run_checks, settings_checks
    from addp_mm.checks.launch import check_launcher
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.runner_cfg import set_work_dir

    check_launcher(args.launcher)
    _check_conflicts(args)
    cfg = load_config(args.config, args.cfg_options, argument_kinds)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    run_checks(settings_checks(cfg, needed))
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.work_dir, args.config)
    if args.seed is not None:
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': args.seed}
    return cfg


def _check_conflicts(args: argparse.Namespace) -> None:
    """Refuse a key in ``--cfg-options`` that an argument of the tool replaces."""
    from addp_mm.errors import ConfigError

    replaced = {'launcher': '--launcher'}
    if args.work_dir is not None:
        replaced['work_dir'] = '--work-dir'
    if args.seed is not None:
        replaced['randomness.seed'] = '--seed'
    if hasattr(args, 'checkpoint'):  # a test
        replaced |= {'load_from': 'the argument CHECKPOINT', 'resume': 'the argument CHECKPOINT'}
    if getattr(args, 'resume', None) not in (None, 'auto'):  # auto may start from load_from
        replaced |= {'load_from': '--resume', 'resume': '--resume'}
    for option in args.cfg_options or ():
        argument = replaced.get(option.partition('=')[0])
        if argument:
            raise ConfigError(f'--cfg-options {option}: {argument} replaces it. Give only {argument}')


class _Renamed(argparse.Action):
    """End the process as soon as the old option is read, so that no other error comes first."""

    def __init__(self, *args, new: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.new = new

    def __call__(self, parser, namespace, values, option_string=None):  # noqa: ARG002  # argparse gives these
        parser.exit(2, f'{parser.prog}: error: {option_string} was renamed: use {self.new}\n')
