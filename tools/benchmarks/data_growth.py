# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure how a data set's start and its memory grow with the number of images.

The data sets are made up: lists without files, empty files, LMDB databases, WebDataset shards,
stored ids, and mmpretrain's CustomDataset to compare. Each is opened in a fresh process: the first
start writes its list, a later one reads it. Then workers of a data loader read every tenth entry of
the list. What they copy is the memory that becomes theirs alone meanwhile. Ten million images need
some minutes and gigabytes of disk: --counts 1000 100000 10000000.
"""

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

from addp_mm.cli_options import number

COUNTS = (1000, 10_000, 100_000, 1_000_000)
KINDS = ('list', 'folder', 'lmdb', 'webdataset', 'ids', 'mmpretrain')
MIB = 2**20
# value, its column, and what one in the column is
COLUMNS = {
    'first_seconds': ('first start, s', 1),
    'first_peak_bytes': ('its added peak, MiB', MIB),
    'start_seconds': ('later start, s', 1),
    'start_bytes': ('kept, MiB', MIB),
    'order_seconds': ('order of an epoch, s', 1),
    'order_bytes': ('kept for it, MiB', MIB),
    'pickle_bytes': ('pickled, MiB', MIB),
    'worker_copied_bytes': ('copied in a worker, MiB', MIB),
    'worker_private_bytes': ('private to a worker, MiB', MIB),
}
# smaller values are noise
LEAST_SECONDS, LEAST_BYTES = 0.1, MIB


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = dict(nargs='+', action='extend')
    parser.add_argument('--kind', **several, choices=KINDS, help='data sets [all]')
    usual = ' '.join(map(str, COUNTS))
    parser.add_argument('--counts', **several, type=number(int, 1), help=f'numbers of images [{usual}]')
    parser.add_argument('--num-workers', type=number(int, 1), default=2, help='workers that read the list [2]')
    parser.add_argument('--scratch', type=Path, help='folder for the made-up data [that of temporary files]')
    parser.add_argument('--figure', type=Path, metavar='FILE.svg', help='draw the values against the images')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write tables and all values to this file, too')
    args = parser.parse_args(argv)
    args.counts = sorted(set(args.counts or COUNTS))
    return args


def table_of(points):
    """Rows of the points, and what an image adds between the smallest and the largest."""
    header = ['images', *(title for title, _ in COLUMNS.values())]
    rows = [
        [f'{point["images"]:,}', *(shown(point[key], unit) for key, (_, unit) in COLUMNS.items())] for point in points
    ]
    if len(points) > 1:
        rows.append(['per image', *(per_image_text(key, points) for key in COLUMNS)])
    return dict(header=header, rows=rows)


def shown(value, unit):
    """A value in a unit."""
    return '–' if value is None else f'{value / unit:.3g}'


def per_image(key, points):
    """What an image adds to a value, between the smallest and the largest number of images."""
    first, last = points[0], points[-1]
    if first[key] is None or last[key] is None:
        return None
    return (last[key] - first[key]) / (last['images'] - first['images'])


def per_image_text(key, points):
    """As :func:`per_image`, in microseconds or bytes."""
    value = per_image(key, points)
    if value is None:
        return '–'
    return f'{1e6 * value:.3g} µs' if key.endswith('seconds') else f'{value:.3g} B'


def growths_of(points):
    """The values that are large enough to tell how they grow."""
    from addp_mm.benchmark.growth import Growth, exact

    growths = []
    for key, (title, _) in COLUMNS.items():
        least = LEAST_SECONDS if key.endswith('seconds') else LEAST_BYTES
        values = [point[key] if point[key] is not None and point[key] >= least else None for point in points]
        growths.append(Growth(title, [point['images'] for point in points], [exact(value) for value in values]))
    return [growth for growth in growths if sum(value is not None for value in growth.values) > 1]


def measure(args, kind, scratch):
    """Measure a kind; returns the record of a group and its growths."""
    import torch

    from addp_mm.benchmark.data_growth import measure_point
    from addp_mm.benchmark.growth import growth_table
    from addp_mm.benchmark.made_up_data import KINDS as ALL
    from addp_mm.benchmark.times_report import about_run
    from addp_mm.report.markdown import markdown_table

    points = [measure_point(kind, count, args.num_workers, scratch) for count in args.counts]
    growths = growths_of(points)
    tables = [table_of(points), *([growth_table(growths, 'images')] if growths else [])]
    print(f'\n{ALL[kind].title}')
    for table in tables:
        print('\n' + markdown_table(table['header'], table['rows'], numbers=True), end='', flush=True)
    group = dict(title=ALL[kind].title, about=about_run(torch.device('cpu'), {}), tables=tables, cases=points)
    group['growth'] = [growth.record() for growth in growths]
    if len(points) > 1:
        group['per_image'] = {key: per_image(key, points) for key in COLUMNS}
    return group, growths


def draw(path, groups):
    """Draw each value of all kinds."""
    from addp_mm.checkpoints.atomic_write import write_text
    from addp_mm.report.growth_figures import growth_charts

    charts = {}
    for key, (title, unit) in COLUMNS.items():
        lines = {
            group['title']: [(one['images'], one[key] / unit) for one in group['cases'] if one[key] is not None]
            for group in groups
        }
        charts[title] = 'images', title, lines
    write_text(path, growth_charts(charts).content.decode())


def run(args):
    """Measure all kinds; returns what grows faster than linearly."""
    from addp_mm.benchmark.data_growth import preload
    from addp_mm.benchmark.growth import faster_than_linear
    from addp_mm.checkpoints.atomic_write import write_json

    records = dict(title='Data sets of many images', groups=[])
    scratch, growths = args.scratch or Path(tempfile.gettempdir()), {}
    preload(args.kind or KINDS)
    for kind in args.kind or KINDS:
        if kind == 'lmdb' and find_spec('lmdb') is None:
            print('\nlmdb is left out, because it is not installed: pip install "addp_mm[data]"')
            continue
        group, growths[kind] = measure(args, kind, scratch)
        records['groups'].append(group)
        records['faster_than_linear'] = faster_than_linear(growths)
        if args.out is not None:
            write_json(args.out, records)
    if args.figure is not None:
        draw(args.figure, records['groups'])
    return records['faster_than_linear']


def main(argv=None):
    """Measure, print the tables, write and draw them."""
    args = parse_args(argv)
    from addp_mm.config.paths import require_writable, require_writable_folder
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('finished data sets are in --out'), exit_on_user_error():
        for path, option in ((args.out, '--out'), (args.figure, '--figure')):
            if path is not None:
                require_writable(path, option)
        if args.scratch is not None:
            require_writable_folder(args.scratch, '--scratch')
            args.scratch.mkdir(parents=True, exist_ok=True)
        found = run(args)
    print('\nFaster than linear:' if found else '\nNothing grows faster than linearly.')
    print('\n'.join(found))


if __name__ == '__main__':
    main()
