# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a failed iteration of a training again: which module, which sample, which precision.

TrainingGuardHook saves failed iterations in WORK_DIR/failed_batches. The forward and backward pass
is repeated with the weights, the batch and the seed of the iteration, in its precision, and in
float32 beside mixed precision. Then each sample of the batch is run alone. Nothing is trained.
"""

import argparse
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, add_device_option, aligned


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('event', help='file of the failed iteration, such as failed_batches/iter_120_rank_0.pth')
    parser.add_argument('--config', help="config of the training, as a path or a name [the event's own]")
    parser.add_argument('--checkpoint', help="weights, if the event has none [the event's own]")
    add_device_option(parser, 'cpu')
    parser.add_argument('--out', type=Path, metavar='FILE.png', help='draw the images of the batch')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def load(args):
    """The event with its weights, its config, and where the weights are from."""
    from addp_mm.analysis.replay.rebuilt import config_of
    from addp_mm.checkpoints.reading import load_checkpoint_file
    from addp_mm.checkpoints.state_dict import find_state_dict
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.guards.failed_batch import read_event
    from addp_mm.errors import ConfigError

    event, source = read_event(args.event), args.event
    cfg = load_config(args.config, args.cfg_options, argument_kinds) if args.config else config_of(event)
    if args.cfg_options and not args.config:
        raise ConfigError('--cfg-options changes a config: give --config')
    if args.checkpoint:
        source = args.checkpoint
        event['weights'] = dict(find_state_dict(load_checkpoint_file(source), source))
    if event['weights'] is None:
        raise ConfigError(f'{args.event} was saved without weights: give a checkpoint of the run with --checkpoint')
    return event, cfg, source


def run(args):
    """Print the report."""
    import copy

    from mmengine.utils.dl_utils import has_batch_norm

    from addp_mm.analysis.replay import report
    from addp_mm.analysis.replay.figure import batch_figure
    from addp_mm.analysis.replay.rebuilt import build_model, build_wrapper
    from addp_mm.analysis.replay.replayed import Replay
    from addp_mm.checkpoints.atomic_write import write_png
    from addp_mm.config.paths import require_writable
    from addp_mm.engine.guards.plain_data import batch_size, sample_of
    from addp_mm.engine.runner_cfg import set_amp

    if args.out is not None:
        require_writable(args.out, '--out')
    event, cfg, source = load(args)
    print(*report.head(event), sep='\n')
    model = build_model(cfg, event['weights'], source, args.device)
    replay, dtype = Replay(event, model), event['precision']['dtype']
    wrapper = build_wrapper(cfg, model, event['precision']['loss_scale'])
    passes = {dtype or 'float32': replay.run(wrapper, event['batch'])}
    if dtype:
        plain = copy.deepcopy(cfg)
        set_amp(plain, 'float32')
        passes['float32'] = replay.run(build_wrapper(plain, model, None), event['batch'])
    print(aligned(report.table(event, passes)))
    size = batch_size(event['batch'])
    copies = 2 if has_batch_norm(model) else 1  # which refuses a single vector
    alone = [replay.run(wrapper, sample_of(event['batch'], number, size, copies)) for number in range(size)]
    print(aligned(report.sample_rows(event['names'], alone)))
    if args.out is not None:
        batch = event['batch']
        figure = batch_figure(
            batch['inputs'] if isinstance(batch, dict) else batch, event['names'], report.caused_by(alone)
        )
        if figure is None:
            print('the batch has no images to draw')
        else:
            write_png(args.out, figure)


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        run(args)


if __name__ == '__main__':
    main()
