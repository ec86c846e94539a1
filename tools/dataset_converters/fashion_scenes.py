# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write FashionScenes, synthetic images of garments for pre-training and three downstream tasks.

    python tools/dataset_converters/fashion_scenes.py data/fashion_scenes

The garments are those embedded in the package, or with --source those in a folder of
Fashion-MNIST's IDX files. The same options give byte-identical files, with any number of workers.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from addp_mm.cli_options import add_renamed, number
from addp_mm.datasets.fashion.scene_writer import SceneSetSpec, write_fashion_scenes


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    spec = SceneSetSpec()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to create, for example data/fashion_scenes')
    for flag, name, text in (
        ('--img-size', 'image_size', 'side of the images in pixels'),
        ('--train', 'train', 'number of training scenes'),
        ('--val', 'val', 'number of validation scenes'),
        ('--objects-train', 'objects_train', 'number of training images of one garment'),
        ('--objects-val', 'objects_val', 'number of validation images of one garment'),
        ('--seed', 'seed', 'seed'),
    ):
        default = getattr(spec, name)
        parser.add_argument(
            flag, dest=name, type=number(int, 0), default=default, metavar='N', help=f'{text} [{default}]'
        )
    parser.add_argument('--source', metavar='FOLDER', help="folder of Fashion-MNIST's IDX files, gzipped or not")
    parser.add_argument('--num-workers', type=number(int, 1), default=1, metavar='N', help='number of processes [1]')
    add_renamed(parser, old='--image-size', new='--img-size')
    add_renamed(parser, old='--workers', new='--num-workers')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the set; returns the exit status."""
    args = parse_args(argv)
    # so that SIGTERM removes temporary files as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        spec = SceneSetSpec(args.image_size, args.train, args.val, args.objects_train, args.objects_val, args.seed)
        written = write_fashion_scenes(args.out, spec, args.source, args.num_workers)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(f'error: a worker was killed (out of memory?); {args.out} was not written', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: {args.out} was not written', file=sys.stderr)
        return 130
    print(f'{args.out}: written' if written else f'{args.out}: the same set exists already, nothing done')
    return 0


if __name__ == '__main__':
    sys.exit(main())
