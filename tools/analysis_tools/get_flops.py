# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count operations and parameters of a config's model by module, without data or a GPU.

One MAC is a multiplication with its addition and counts as two FLOPs. Matrix products, convolutions
and attention are counted, as in most papers; norms, activation functions, resizing and sampling are
not. The model runs once on the CPU with random weights. A pre-training runs as in training (forward
pass with its frozen components). A two-stage detector gets as many proposals as its test settings
allow.
"""

import argparse
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, add_renamed, aligned, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config file, or addp_mm::NAME')
    parser.add_argument(
        '--img-size',
        type=number(int, 1),
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels [as in training]',
    )
    parser.add_argument('--batch-size', type=number(int, 1), default=1, help='number of images [1]')
    parser.add_argument(
        '--depth', type=number(int, 0), default=2, help='levels of modules to list; 0 lists the total only [2]'
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all modules to this file, too')
    add_cfg_options(parser)
    add_renamed(parser, old='--shape', new='--img-size')
    add_renamed(parser, old='--batch', new='--batch-size')
    return parser.parse_args(argv)


def rows_of(cost, depth: int) -> list[tuple[str, ...]]:
    """A row for each module down to ``depth``, if it has parameters or operations."""
    level = cost.name.count('.') + 1 if cost.name else 0
    label = '  ' * level + (f'{cost.name.rsplit(".", 1)[-1]}: ' if cost.name else '') + cost.kind
    numbers = (cost.macs / 1e9, cost.flops / 1e9, cost.trained / 1e6, cost.frozen / 1e6)
    rows = [(label, *(f'{number:,.3f}' for number in numbers))]
    if level < depth:
        for child in cost.children:
            rows += rows_of(child, depth) if child.flops or child.trained or child.frozen else []
    return rows


def main(argv=None):
    """Print the table."""
    args = parse_args(argv)
    from dataclasses import asdict

    from addp_mm.analysis.batches import training_size
    from addp_mm.analysis.costs import forward_costs
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.config.paths import require_writable
    from addp_mm.config.type_names import type_name
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        if args.out is not None:
            require_writable(args.out, '--out')
        cfg = load_config(args.config, args.cfg_options, argument_kinds)
        if type_name((cfg.get('model') or {}).get('type')).endswith('TTAModel'):
            print('The model averages over several views of an image. The numbers are those of one view.')
            cfg.model = cfg.model.module
        size = tuple(args.img_size or training_size(cfg))
        cost = forward_costs(cfg, args.batch_size, size)
        print(f'{args.batch_size} image(s) of {size[0]} x {size[1]} px; one MAC is two FLOPs')
        header = ('module', 'GMACs', 'GFLOPs', 'trained, M', 'frozen, M')
        print(aligned([header, *rows_of(cost, args.depth)], ' | ', numbers=True))
        if args.out is not None:
            write_json(args.out, dict(batch_size=args.batch_size, img_size=list(size), cost=asdict(cost)))


if __name__ == '__main__':
    main()
