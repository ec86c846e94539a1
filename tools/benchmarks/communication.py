# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count the bytes that the processes of a training exchange, for 8 to 1024 GPUs.

For DDP and for FSDP (addp_mm.ShardedStrategy): what each process sends in a step, the time at the
bandwidths and the computing rate that you state, and how much of it hides behind the computation.
Everything is counted from the model of the config and from one training step of an image on the
CPU. No time is measured. With --check, two processes run the step on this machine, with gloo, and
every collective operation that torch runs in them is compared with the count.
"""

import argparse
import shlex
import sys
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, number

PROCESSES = (8, 16, 32, 64, 128, 256, 512, 1024)
NETWORK_RATES = (400.0, 12.5)


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config file, or addp_mm::NAME')
    parser.add_argument(
        '--processes', nargs='+', action='extend', type=number(int, 2), help='numbers of GPUs [8 16 … 1024]'
    )
    parser.add_argument('--per-node', type=number(int, 1), default=8, help='GPUs of a node [8]')
    parser.add_argument(
        '--node-rate', type=number(float, 1e-3), default=450.0, help='GB/s from a GPU to another one on its node [450]'
    )
    parser.add_argument(
        '--network-rate',
        nargs='+',
        action='extend',
        type=number(float, 1e-3),
        help='GB/s from a node to the others; several are compared [400 12.5]',
    )
    parser.add_argument(
        '--latency',
        nargs=2,
        type=number(float, 0),
        default=(2.0, 5.0),
        metavar=('NODE', 'NETWORK'),
        help='microseconds of a message on a node, and between nodes [2 5]',
    )
    parser.add_argument(
        '--compute-rate', type=number(float, 1e-3), default=400.0, help='TFLOPS that a GPU reaches in training [400]'
    )
    parser.add_argument(
        '--images', type=number(int, 1), help='images of a step of all GPUs [auto_scale_lr.base_batch_size]'
    )
    parser.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    parser.add_argument('--check', action='store_true', help='compare the count with a step of two processes')
    parser.add_argument(
        '--check-img-size',
        type=number(int, 1),
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels of its images; convolutional heads exchange the same at any size [--img-size]',
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all tables to this file, too')
    parser.add_argument('--page', type=Path, metavar='FILE.md', help='write them as a page, too')
    parser.add_argument('--figure', type=Path, metavar='FILE.svg', help='draw the share of computing in a step')
    add_cfg_options(parser, 'the configs')
    args = parser.parse_args(argv)
    args.processes = args.processes or PROCESSES
    args.network_rate = args.network_rate or NETWORK_RATES
    return args


def links_of(args):
    """What connects the processes, by a name for the reader."""
    from addp_mm.analysis.communication import Links

    node, network = (1e-6 * latency for latency in args.latency)
    return {
        f'{rate:g} GB/s between nodes': Links(1e9 * args.node_rate, 1e9 * rate, node, network)
        for rate in args.network_rate
    }


def assumptions(args):
    """The stated rates, in one line."""
    return (
        f'Stated: {args.node_rate:g} GB/s from a GPU to another one on its node, {args.latency[0]:g} and '
        f'{args.latency[1]:g} microseconds of latency on a node and between nodes, {args.compute_rate:g} TFLOPS of '
        f'each GPU, {args.per_node} GPUs a node.'
    )


def count(cfg, args):
    """Tables of a config without the check, and the points of its charts."""
    from addp_mm.analysis.communication import trace_step
    from addp_mm.analysis.communication.strategies import (
        STRATEGIES,
        Layout,
        exchanges_of,
        images_of_step,
        units_of_config,
    )
    from addp_mm.analysis.communication.tables import bytes_tables, step_table, times_of, times_table

    images, batch_size = args.images or images_of_step(cfg), cfg.train_dataloader.batch_size
    numbers = list(dict.fromkeys(args.processes))
    layouts = [Layout.of_step(processes, args.per_node, images, batch_size) for processes in numbers]
    trace = trace_step(cfg, units_of_config(cfg), args.img_size and tuple(args.img_size))
    counted = {
        name: {layout.processes: exchanges_of(cfg, trace, strategy, layout) for layout in layouts}
        for name, strategy in STRATEGIES.items()
    }
    tables, charts = [step_table(counted, numbers[0]), *bytes_tables(counted, layouts)], {}
    for title, links in links_of(args).items():
        times = times_of(counted, layouts, trace.operations, 1e12 * args.compute_rate, links)
        tables.append(times_table(times, layouts, f'Time of a step, {title}'))
        charts[title] = {
            name: [(processes, 100 * one.computing / one.total) for processes, one in found.items()]
            for name, found in times.items()
        }
    return trace, tables, charts


def compare(cfg, trace, args):
    """Comparisons of the count with two processes, by strategy."""
    from addp_mm.analysis.communication.strategies import STRATEGIES, Comparison, Layout, exchanges_of
    from addp_mm.analysis.communication.two_processes import record_steps

    layout = Layout(2, 2, passes=1, images=1)
    size = args.check_img_size or args.img_size
    seen = record_steps(cfg, list(STRATEGIES.values()), size and tuple(size))
    found = {}
    for (name, strategy), record in zip(STRATEGIES.items(), seen, strict=True):
        exchanges = exchanges_of(cfg, trace, strategy, layout, with_norms=False)
        found[name] = Comparison([(one.kind, one.num_bytes) for one in exchanges], record)
    return found


def measure(path, args):
    """What is written of a config, its charts, and whether the check found a difference."""
    import torch

    from addp_mm.analysis.communication.tables import check_table
    from addp_mm.benchmark.times_report import about_run
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import ConfigError, load_config

    cfg = load_config(path, args.cfg_options, argument_kinds)
    if not cfg.get('optim_wrapper') or not cfg.get('train_dataloader'):
        raise ConfigError(f'{path} has no optim_wrapper or no train_dataloader, so it cannot be trained')
    if 'optimizer' not in cfg.optim_wrapper:
        raise ConfigError(f'{path}: optim_wrapper has several optimizers; a training with one can be counted')
    cfg.optim_wrapper.pop('accumulative_counts', None)  # the passes follow from the images
    trace, tables, charts = count(cfg, args)
    differs = False
    if args.check:
        comparisons = compare(cfg, trace, args)
        tables.append(check_table(comparisons))
        differs = not all(found.is_equal for found in comparisons.values())
    title = Path(path).stem
    return dict(title=title, about=about_run(torch.device('cpu'), {}), tables=tables, cases=[]), charts, differs


def svg_of(charts, columns):
    """The charts as a file."""
    from addp_mm.report.scaling_figure import scaling_charts

    return scaling_charts(charts, columns, '% of a step that computes').content.decode()


def main(argv=None):
    """Count, compare, print and write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse_args(argv)
    from addp_mm.benchmark.communication_page import EXPLANATION, as_page
    from addp_mm.checkpoints.atomic_write import write_json, write_text
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.report.markdown import markdown_table

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        for option in ('out', 'page', 'figure'):
            if getattr(args, option) is not None:
                require_writable(getattr(args, option), f'--{option}')
        print(f'{EXPLANATION} {assumptions(args)}')
        groups, charts, differing = [], {}, []
        for path in args.configs:
            group, lines, differs = measure(path, args)
            groups.append(group)
            charts.update({f'{group["title"].split("_")[0]}, {title}': found for title, found in lines.items()})
            differing += [group['title']] if differs else []
            print(f'\n{group["title"]}')
            for table in group['tables']:
                print(f'\n{table["title"]}\n\n{markdown_table(table["header"], table["rows"], numbers=True)}', end='')
        if args.out:
            explanation = f'{EXPLANATION} {assumptions(args)}'
            write_json(args.out, dict(title='What the processes exchange', explanation=explanation, groups=groups))
        if args.figure:
            write_text(args.figure, svg_of(charts, len(args.network_rate)))
        if args.page:
            command = shlex.join(['python', 'tools/benchmarks/communication.py', *argv])
            write_text(args.page, as_page(command, assumptions(args), groups, args.page, args.figure))
    if differing:
        sys.exit(f'error: two processes exchange something else than was counted: {", ".join(differing)}')


if __name__ == '__main__':
    main()
