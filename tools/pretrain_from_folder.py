# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train a tokenizer, a token predictor and ADDP on your own images, one after the other.

    python tools/pretrain_from_folder.py photos --img-size 128 --work-dir work_dirs/photos

If it is interrupted, the same command continues. Each stage is trained by tools/train.py from a
config in the work dir, which you can also train by hand. See docs/own_data.md.
"""

import argparse
import sys
from pathlib import Path

from addp_mm.cli_options import add_renamed, number


def add_images(parser):
    """Add the options on the images."""
    parser.add_argument(
        'images',
        help='folder, with all its subfolders; LMDB database; or WebDataset shards: a folder of .tar files, '
        "or a quoted pattern 'shards/*.tar'",
    )
    parser.add_argument(
        '--img-size', type=number(int, 1), required=True, metavar='N', help='side of the training images, in pixels'
    )
    parser.add_argument(
        '--channels', type=number(int, 1, 16), metavar='N', help='channels, 1 to 16 (default: those of the images)'
    )
    parser.add_argument(
        '--value-range',
        type=number(float),
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='values of black and white; required for floats and 32 bits',
    )
    parser.add_argument(
        '--augment',
        choices=['crop', 'flip', 'none'],
        default='crop',
        help='crop: random resized crop and flip; flip: centre square, mirrored or not; none: centre square '
        '(default: crop)',
    )
    parser.add_argument(
        '--crop-scale',
        type=number(float, 0, 1),
        nargs=2,
        default=[0.2, 1.0],
        metavar=('MIN', 'MAX'),
        help='area of a crop as a share of the image (default: 0.2 1.0)',
    )
    parser.add_argument(
        '--views',
        type=number(int, 1),
        metavar='N',
        help='stored views of each image (default: 8 with --augment crop, 2 with flip, 1 with none)',
    )
    parser.add_argument(
        '--max-broken-share',
        type=number(float, 0, 1),
        default=0.01,
        metavar='X',
        help='training stops if a larger share of the images is broken; fewer are skipped (default: 0.01)',
    )
    parser.add_argument(
        '--images-changed',
        choices=['error', 'keep'],
        default='error',
        help='if images were added or removed since the first start: stop, or keep the old list (default: error)',
    )


def add_stages(parser):
    """Add the options on the stages."""
    parser.add_argument(
        '--size',
        choices=['nano', 'small', 'base', 'large'],
        default='small',
        help='size of all three models (default: small)',
    )
    for stage in ('tokenizer', 'predictor', 'addp'):
        parser.add_argument(f'--{stage}-config', metavar='FILE', help=f'config with changes of the stage {stage}')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='STAGE.KEY=VALUE',
        help='change settings of a stage, such as tokenizer.max_iters=20000 addp.batch_size=128 '
        'addp.model.backbone.arch=base',
    )
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for all output')
    parser.add_argument(
        '--restart-from',
        choices=['tokenizer', 'tokens', 'predictor', 'addp'],
        help='remove this stage and all later ones from the work dir, and run them again',
    )


def add_machine(parser):
    """Add the options on the machine."""
    parser.add_argument(
        '--gpus', type=number(int, 1), metavar='N', help='training processes, one on each GPU (default: all GPUs)'
    )
    parser.add_argument(
        '--amp',
        choices=['auto', 'off', 'bfloat16'],
        default='auto',
        help='mixed precision; auto: bfloat16 on GPUs that support it (default: auto)',
    )
    parser.add_argument(
        '--num-workers',
        type=number(int, 0),
        metavar='N',
        help='processes that load images, for each training process (default: up to 4, by the number of cores)',
    )


def add_results(parser):
    """Add the options on the results."""
    parser.add_argument(
        '--num-images', type=number(int, 1), default=16, metavar='N', help='images to generate at the end (default: 16)'
    )
    parser.add_argument(
        '--fid-extractor',
        metavar='CONFIG',
        help="measure the tokenizer's Fréchet distance in features of the 'extractor' in this config; see "
        'configs/_base_/evaluation',
    )
    parser.add_argument(
        '--inception-weights', metavar='FILE', help="measure rFID with FID's Inception; a path or hf://"
    )
    parser.add_argument(
        '--lpips-weights', metavar='FILE', help="measure LPIPS with torchvision's AlexNet; a path or hf://"
    )


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for title, add in (
        ('images', add_images),
        ('stages', add_stages),
        ('machine', add_machine),
        ('results', add_results),
    ):
        add(parser.add_argument_group(title))
    for old, new in (('--image-size', '--img-size'), ('--samples', '--num-images'), ('--precision', '--amp')):
        add_renamed(parser, old=old, new=new)
    args = parser.parse_args(argv)
    from addp_mm.datasets.views.views import Views

    args.views = args.views or dict(crop=8, flip=2, none=1)[args.augment]
    args.work_dir = args.work_dir.absolute()
    if args.value_range and not args.value_range[0] < args.value_range[1]:
        parser.error('--value-range LOW HIGH: LOW must be below HIGH')
    try:
        Views(args.img_size, args.views, args.augment, tuple(args.crop_scale))
    except ValueError as error:
        parser.error(f'--views, --augment and --crop-scale: {error}')
    return args


def main(argv=None, execute=None):
    """Run the tool.

    Args:
        argv: Command line. Defaults to None: that of this process.
        execute: Function that replaces the process of a command. It is called with the command, the
            log and a function that returns a line on the progress, and returns the exit status.
            Defaults to None.
    """
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.own_data.pipeline import Pipeline

    # file names may contain bytes that are not UTF-8
    sys.stdout.reconfigure(errors='backslashreplace')
    left = f'the same command continues the work in {args.work_dir}, without --restart-from'
    with exit_on_interrupt(left), exit_on_user_error(OSError):
        Pipeline(args, execute).run()


if __name__ == '__main__':
    main()
