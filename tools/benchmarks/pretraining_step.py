# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time a training step by component, of one or more configs in turns.

It is meant for pre-trainings: ADDP, a tokenizer, a token predictor. Images are synthetic and
weights random; no data and no checkpoint is read. With --published, the published ADDP code takes
turns, too: a training step of its ViT-B or ViT-L on as many images of 256 px. On a GPU every
component waits for the device, so a step is a little slower than in a training.
"""

import argparse
import contextlib

from addp_mm.cli_options import ToolParser, add_cfg_options, add_published_options, add_timing_options, number

PRECISIONS = ('float32', 'bfloat16', 'float16')


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config, or addp_mm::NAME')
    parser.add_argument(
        '--precision',
        nargs='+',
        action='extend',
        choices=PRECISIONS,
        help='precisions of the steps; each config is measured in all of them [as in the config]',
    )
    parser.add_argument('--batch-size', type=number(int, 1), help="images in a step [the config's on one GPU]")
    parser.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    add_published_options(parser)
    add_timing_options(parser)
    add_cfg_options(parser, 'every config')
    return parser.parse_args(argv)


def own_case(path, precision, args, stack):
    """A config's training step in one precision."""
    from addp_mm.analysis import TrainingStep
    from addp_mm.benchmark.paired_times import Case
    from addp_mm.benchmark.step_parts import spans_of_step
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.runner_cfg import set_amp

    cfg = load_config(path, args.cfg_options, argument_kinds)
    set_amp(cfg, precision)
    step = TrainingStep(cfg, args.batch_size, args.img_size and tuple(args.img_size), args.device)
    spans = None
    if not args.no_components:
        spans = spans_of_step(step)
        stack.callback(spans.unwrap)
    height, width = step.img_size
    name = f'{path} ({step.batch_size} x {height} x {width})'
    return Case(name, step, step.precision, step.batch_size, spans)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.benchmark.published_addp import PublishedADDP
    from addp_mm.benchmark.published_case import SIZE, published_case
    from addp_mm.benchmark.timed_tool import Group, measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error(), contextlib.ExitStack() as stack:
        prepare(args)
        precisions = args.precision or [None]
        cases = [own_case(path, precision, args, stack) for path in args.configs for precision in precisions]
        if args.published:
            batches = dict.fromkeys(case.images for case in cases)
            what = {batch: f'{batch} x {SIZE} x {SIZE}' for batch in batches}
            theirs = [published_case(args, *one, PublishedADDP.train_step) for one in what.items()]
            cases = [*theirs, *cases]
        measure_groups('Training step', [Group('Training step', cases)], args)


if __name__ == '__main__':
    main()
