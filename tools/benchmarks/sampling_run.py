# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time a sampling run by component, of one or more ADDP configs in turns.

Weights are random; no checkpoint is read. The schedule is the published one. With --published, the
published ADDP code takes turns, too: as many images of 256 px in as many steps. It also encodes the
images that it is given, which its time includes.
"""

import argparse
import contextlib

from addp_mm.cli_options import ToolParser, add_cfg_options, add_published_options, add_timing_options, number

PRECISIONS = ('float32', 'bfloat16', 'float16')


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of an ADDP config, or addp_mm::NAME')
    parser.add_argument(
        '--precision',
        nargs='+',
        action='extend',
        choices=PRECISIONS,
        help='precisions of the runs; each config is measured in all of them [float32]',
    )
    parser.add_argument('--num-images', type=number(int, 1), default=2, help='images of a run [2]')
    parser.add_argument('--steps', type=number(int, 1), default=8, help='sampling steps of a run [8]')
    add_published_options(parser)
    add_timing_options(parser, rounds=3)
    add_cfg_options(parser, 'every config')
    return parser.parse_args(argv)


def build_sampler(path, args):
    """The sampler of a config's model, with random weights.

    Raises:
        ConfigError: The config is not one of an ADDP.
    """
    from addp_mm.analysis.batches import build_model
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import ConfigError
    from addp_mm.generation import AlternatingSampler, SamplingSchedule
    from addp_mm.models.selfsup import ADDP

    cfg = load_config(path, args.cfg_options, argument_kinds)
    model = build_model(cfg)
    if not isinstance(model, ADDP):
        raise ConfigError(f'{path} builds {type(model).__name__}, which cannot generate images: give an ADDP config')
    model = model.requires_grad_(False).to(args.device).eval()
    return AlternatingSampler(model, model.latent_size, SamplingSchedule(args.steps))


def own_case(path, precision, args, stack):
    """A config's sampling run in one precision."""
    import torch

    from addp_mm.benchmark.paired_times import Case, autocast
    from addp_mm.benchmark.step_parts import spans_of_sampler

    sampler = build_sampler(path, args)

    def run():
        generator = torch.Generator().manual_seed(args.seed)
        with autocast(args.device, precision):
            sampler.run(args.num_images, generator)

    spans = None
    if not args.no_components:
        spans = spans_of_sampler(sampler)
        stack.callback(spans.unwrap)
    return Case(f'{path} ({args.num_images} images, {args.steps} steps)', run, precision, args.num_images, spans)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.benchmark.published_case import published_case
    from addp_mm.benchmark.timed_tool import Group, measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error(), contextlib.ExitStack() as stack:
        prepare(args)
        precisions = args.precision or ['float32']
        cases = [own_case(path, precision, args, stack) for path in args.configs for precision in precisions]
        if args.published:
            what = f'{args.num_images} images, {args.steps} steps'
            published = published_case(
                args, args.num_images, what, lambda model, images: model.sample(images, args.steps)
            )
            cases = [published, *cases]
        measure_groups('Sampling run', [Group('Sampling run', cases)], args)


if __name__ == '__main__':
    main()
