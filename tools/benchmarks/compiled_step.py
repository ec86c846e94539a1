# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compile the whole training step of configs, as compile=True does; count, compare and time it.

Each config takes the same steps with and without compilation, from the same weights. Every step has
other images, noise, numbers of objects and unlabelled pixels, and another learning rate. The table
shows how many graphs were compiled, and how often a function was compiled again, in the first two
steps and in later ones; and how far losses and gradients differ. Then both take turns in time. The
tool fails if a loss or the gradients differ by more than --tolerance.

Weights are random; no data and no checkpoint is read. Random numbers of compiled code are those of
uncompiled code, which a training does not need. --backend eager or aot_eager traces without a
compiler.
"""

import argparse
from functools import partial

from addp_mm.cli_options import ToolParser, add_cfg_options, add_timing_options, number

HEADER = (
    'config',
    'graphs',
    'graph breaks',
    'recompilations in 2 steps',
    'graphs, recompilations in later steps',
    'seconds of 2 steps',
    'loss differs by',
    'gradients differ by',
)
EXPLANATION = 'Differences are relative, the largest of all steps; that of gradients is of their norm.'


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config, or addp_mm::NAME')
    parser.add_argument('--backend', default='inductor', help='backend of torch.compile [inductor]')
    parser.add_argument('--mode', help="mode of torch.compile, such as reduce-overhead [torch's default]")
    parser.add_argument('--steps', type=number(int, 1), default=10, help='steps after the first two [10]')
    parser.add_argument('--batch-size', type=number(int, 1), default=4, help='images in a step [4]')
    parser.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    parser.add_argument(
        '--tolerance', type=number(float, 0), default=1e-3, help='largest difference that is allowed [0.001]'
    )
    parser.add_argument('--no-times', action='store_true', help='count and compare only')
    parser.add_argument('--reasons', action='store_true', help='print why graphs end and functions are compiled again')
    add_timing_options(parser)
    add_cfg_options(parser, 'every config')
    return parser.parse_args(argv)


def compare_config(path, args):
    """A config's compiled step next to the one without compilation."""
    from addp_mm.analysis import TrainingStep
    from addp_mm.benchmark.compiled_step import compare
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config

    cfg = load_config(path, args.cfg_options, argument_kinds)
    build = partial(TrainingStep, cfg, args.batch_size, args.img_size and tuple(args.img_size), args.device)
    arguments = dict(backend=args.backend, **(dict(mode=args.mode) if args.mode else {}))
    found = compare(build, args.seed, args.steps, arguments)
    values = zip(HEADER, row(path, found), strict=True)  # the table comes at the end
    print('; '.join(f'{name}: {value}' for name, value in values), flush=True)
    return found


def row(path, found) -> list[str]:
    """A config's row of the table."""
    return [
        path,
        str(found.first.graphs),
        str(sum(found.breaks.values())),
        str(found.first.recompilations),
        f'{found.later.graphs}, {found.later.recompilations}',
        f'{found.seconds:.1f}',
        f'{found.loss:.1e}',
        f'{found.gradient:.1e}',
    ]


def print_reasons(path, found) -> None:
    """Why graphs end, and why functions are compiled again."""
    for reason, times in found.breaks.items():
        print(f'{path}: graph break ({times}): {reason}')
    for reason in found.compilations.reasons:
        print(f'{path}: compiled again: {reason}')


def measure(args) -> tuple[dict, dict]:
    """The comparison of each config by its path, and the times, config by config."""
    from addp_mm.benchmark.timed_tool import measure_groups

    compared = {}

    def groups():
        for path in args.configs:
            compared[path] = compare_config(path, args)
            yield timed(path, compared[path])

    if not args.no_times:
        return compared, measure_groups('Compiled training step', groups(), args, with_memory=False)
    return {path: compare_config(path, args) for path in args.configs}, {}


def timed(path, found):
    """The steps of a config, to be timed in turns. Operations of compiled code are not counted."""
    from addp_mm.benchmark.paired_times import Case
    from addp_mm.benchmark.timed_tool import Group

    step = found.eager.step
    cases = [
        Case(name, run, step.precision, step.batch_size, count=lambda: 0)
        for name, run in (('not compiled', found.eager), ('compiled', found.compiled))
    ]
    return Group(f'{path} ({step.batch_size} x {step.img_size[0]} x {step.img_size[1]})', cases)


def main(argv=None):
    """Compare and time the steps, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.benchmark.timed_tool import prepare
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.report.markdown import markdown_table

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        prepare(args)
        from torch._inductor import config as inductor

        with inductor.patch(fallback_random=True):
            compared, records = measure(args)
        table = dict(header=HEADER, rows=[row(path, found) for path, found in compared.items()])
        print(f'\n{EXPLANATION}\n' + markdown_table(table['header'], table['rows'], numbers=True), end='')
        if args.reasons:
            for path, found in compared.items():
                print_reasons(path, found)
        if args.out is not None:
            write_json(args.out, dict(records, compilations=table))
    wrong = [path for path, found in compared.items() if not max(found.loss, found.gradient) <= args.tolerance]
    if wrong:
        raise SystemExit(f'error: compiled and uncompiled steps differ by more than {args.tolerance}: {wrong}')


if __name__ == '__main__':
    main()
