# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write FashionScenes: garments scattered over calm backgrounds, for pre-training and all three downstream tasks.

    python tools/dataset_converters/fashion_scenes.py data/fashion_scenes

The embedded garments are used unless --source names a folder of Fashion-MNIST's IDX files. The same
options give byte-identical files, whatever the number of workers.
"""

import argparse
import signal
import sys
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from addp_mm.datasets.fashion.scene_writer import FORMATS, SceneSetSpec, write_fashion_scenes


def parse_args() -> argparse.Namespace:
    spec = SceneSetSpec()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to make, for example data/fashion_scenes')
    for name, text in (
        ('image-size', 'edge of the pictures in pixels'),
        ('train', 'number of training scenes'),
        ('val', 'number of validation scenes'),
        ('objects-train', 'number of training pictures of one garment'),
        ('objects-val', 'number of validation pictures of one garment'),
        ('seed', 'seed'),
    ):
        default = getattr(spec, name.replace('-', '_'))
        parser.add_argument(f'--{name}', type=int, default=default, metavar='N', help=f'{text} (default: {default})')
    parser.add_argument(
        '--formats',
        nargs='+',
        choices=FORMATS,
        default=FORMATS,
        help='coco: instances JSON; ade: label PNGs; imagenet: a folder a class (default: all)',
    )
    parser.add_argument('--source', metavar='FOLDER', help="folder of Fashion-MNIST's IDX files, gzipped or not")
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='number of processes (default: 1)')
    return parser.parse_args()


def show_progress(items: Iterable, text: str, total: int) -> Iterable:
    return tqdm(items, desc=f'{text:>13}', total=total, unit='batch')


def main() -> int:
    args = parse_args()
    # A polite kill then cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        spec = SceneSetSpec(
            args.image_size, args.train, args.val, args.objects_train, args.objects_val, args.seed, tuple(args.formats)
        )
        written = write_fashion_scenes(args.out, spec, args.source, args.workers, show_progress)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(f'error: a worker was killed (out of memory?); {args.out} was not written', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.out} was not written', file=sys.stderr)
        return 130
    print(f'{args.out}: written' if written else f'{args.out}: the same set is there already, nothing done')
    return 0


if __name__ == '__main__':
    sys.exit(main())
