# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operations, parameters and activations of a config's model by module, from shapes alone: no weights, no GPU.

One MAC is a multiplication with its addition and counts as two FLOPs. Counted are matrix products,
convolutions and attention, as most papers count; not norms, activation functions, resizing or
sampling. A pre-training is counted as it trains (forward pass, frozen parts included), a two-stage
detector with all proposals that its test settings allow.
"""

import argparse


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config file, or addp_mm::NAME')
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='image in pixels [as in training]'
    )
    parser.add_argument('--batch', type=int, default=1, help='images [1]')
    parser.add_argument('--depth', type=int, default=2, help='levels of modules to list, 0 for the totals alone [2]')
    parser.add_argument(
        '--memory',
        action='store_true',
        help='add the memory of a training step, without and with '
        'gradient checkpointing, in float32 and bfloat16, for --batch images',
    )
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change settings of the config')
    args = parser.parse_args(argv)
    for option, least in (('batch', 1), ('depth', 0)):
        if getattr(args, option) < least:
            parser.error(f'--{option} must be {least} or more, got {getattr(args, option)}')
    if args.shape and min(args.shape) < 1:
        parser.error(f'--shape must be two positive numbers, got {args.shape}')
    return args


def rows_of(cost, depth: int) -> list[tuple[str, ...]]:
    """A row for each module down to ``depth``; those that hold and multiply nothing are left out."""
    level = cost.name.count('.') + 1 if cost.name else 0
    label = '  ' * level + (f'{cost.name.rsplit(".", 1)[-1]}: ' if cost.name else '') + cost.kind
    rows = [
        (
            label,
            f'{cost.macs / 1e9:,.3f}',
            f'{cost.flops / 1e9:,.3f}',
            f'{cost.trained / 1e6:,.3f}',
            f'{cost.frozen / 1e6:,.3f}',
            f'{cost.activations / 1e6:,.3f}',
        )
    ]
    if level < depth:
        for part in cost.children:
            rows += rows_of(part, depth) if part.flops or part.trained or part.frozen else []
    return rows


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns under each other, the first one to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return '\n'.join(
        ' | '.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    )


def memory_rows(cfg, batch: int, size: tuple[int, int]) -> list[tuple[str, ...]]:
    """A row for each precision, without and with checkpointing where the backbone knows it."""
    from addp_mm.analysis.costs import gib, training_memory

    rows = []
    for precision in ('float32', 'bfloat16'):
        for with_cp in (False, True) if cfg.model.get('backbone', {}).get('type') == 'addp_mm.ADDPViT' else (None,):
            memory = training_memory(cfg, batch, size, precision, with_cp)
            parts = (memory.parameters, memory.gradients, memory.optimizer, memory.activations, memory.peak)
            rows.append((precision, 'as it is' if with_cp is None else str(with_cp), *(f'{gib(p):.2f}' for p in parts)))
    return rows


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.analysis.costs import forward_costs, training_size
    from addp_mm.config.config_file import ConfigError, load_config
    from addp_mm.config.type_names import type_name
    from addp_mm.errors import reported_in_words

    with reported_in_words():
        cfg = load_config(args.config, args.cfg_options)
        if type_name((cfg.get('model') or {}).get('type')).endswith('TTAModel'):
            print('The model averages over views of an image: what follows is one view of one scale.')
            cfg.model = cfg.model.module
        size = tuple(args.shape or training_size(cfg))
        cost = forward_costs(cfg, args.batch, size)
        print(f'{args.batch} image(s) of {size[0]} x {size[1]} px; one MAC is two FLOPs')
        print(
            table(('module', 'GMACs', 'GFLOPs', 'trained, M', 'frozen, M', 'activations, M'), rows_of(cost, args.depth))
        )
        if args.memory:
            if not cfg.get('optim_wrapper'):
                raise ConfigError(f'--memory: {args.config} trains nothing, it has no optim_wrapper')
            print('\nOne training step, GiB (analytic, not measured on a GPU)')
            print(
                table(
                    ('precision', 'with_cp', 'parameters', 'gradients', 'optimizer', 'activations', 'peak'),
                    memory_rows(cfg, args.batch, size),
                )
            )


if __name__ == '__main__':
    main()
