# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time mmcv's operators as addp_mm provides them, against other implementations.

'reference' is torchvision, or a plain computation if torchvision has none. 'compiled' are the
operators of an installed mmcv that was compiled. Sizes are those of a usual detector. Operators
that differentiate are timed forward and backward. The tool fails if results differ.
"""

import argparse
import time

from addp_mm.cli_options import add_timing_options, number


def parse_args(argv=None):
    """Parse the command line."""
    from addp_mm.benchmark.operators import OPERATORS
    from addp_mm.benchmark.operators.comparison import COMPILED, REFERENCE

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--op', nargs='+', action='extend', choices=list(OPERATORS), help='operators [all]')
    parser.add_argument(
        '--against', nargs='+', action='extend', choices=[REFERENCE, COMPILED], help='what to compare with [reference]'
    )
    parser.add_argument('--scale', type=number(float, 0.001, 1), default=1.0, help='share of the usual sizes [1]')
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='time of the processors, of all threads together: for a CPU that other processes use, too',
    )
    add_timing_options(parser)
    return parser.parse_args(argv)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.benchmark.operators import OPERATORS, Inputs
    from addp_mm.benchmark.operators.comparison import EXPLANATION, HEADER, REFERENCE, operator_groups, rows
    from addp_mm.benchmark.timed_tool import measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.report.markdown import markdown_table

    with exit_on_interrupt('finished groups are in --out'), exit_on_user_error():
        prepare(args)
        operators = [OPERATORS[name] for name in args.op or OPERATORS]
        groups = operator_groups(operators, lambda: Inputs(args.device, args.scale), args.against or [REFERENCE])
        clock = time.process_time if args.processor_time else time.perf_counter
        records = measure_groups('Operators', groups, args, clock=clock)
        print(f'\n{EXPLANATION}\n\n{markdown_table(HEADER, rows(records), numbers=True)}', end='')


if __name__ == '__main__':
    main()
