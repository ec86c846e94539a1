# Copyright (c) addp_mm contributors. Apache-2.0.
"""Align a generator with a reward: sample, find what is wrong, train it away, and compare.

    addp align CONFIG --work-dir work_dirs/align

Several configs with the same section 'alignment' are methods that are compared: they share the
samples, the pairs and the token scores. Run the same command again to continue an interrupted run.
Jobs with other seeds can share a work dir; the report has all that have ended.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import ToolParser, number

if TYPE_CHECKING:
    from addp_mm.stages.commands import Execute


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='config of a method: a file, or the name of a shipped config'
    )
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for all output')
    parser.add_argument(
        '--seeds',
        type=number(int, 0),
        nargs='+',
        action='extend',
        help='run everything once with each of these seeds [0]',
    )
    parser.add_argument(
        '--gpus', type=number(int, 1), metavar='N', help='processes, one on each GPU (default: all GPUs)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='PART.KEY=VALUE',
        help="change settings: of the section 'alignment', of 'likelihood' (the positive and the negative model), or "
        'of a method, such as alignment.sampling.num_images=1000 cdpo.model.loss.beta=0.2',
    )
    parser.add_argument(
        '--restart-from',
        nargs='+',
        action='extend',
        default=[],
        metavar='PART',
        help='remove samples, selection, positive, negative, a method or comparison, and all that depends on it, and '
        'run it again',
    )
    args = parser.parse_args(argv)
    args.seeds = args.seeds or [0]
    if len({*args.seeds}) < len(args.seeds):
        parser.error('--seeds: one of them is given twice')
    args.work_dir = args.work_dir.absolute()
    return args


def main(argv: Sequence[str] | None = None, execute: 'Execute | None' = None) -> None:
    """Run the tool.

    Args:
        argv: Command line. Defaults to None: that of this process.
        execute: Function that replaces the process of a command. Defaults to None.
    """
    args = parse_args(argv)
    from addp_mm.alignment.pipeline.pipeline import Pipeline
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    left = f'the same command continues the work in {args.work_dir}, without --restart-from'
    with exit_on_interrupt(left), exit_on_user_error(OSError):
        Pipeline(args, execute).run()


if __name__ == '__main__':
    main()
