# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train tokenizer, token predictor and ADDP on one's own images, one after the other.

    python tools/pretrain_from_folder.py photos --image-size 128 --size small --work-dir
    work_dirs/photos

The same command goes on where an interrupted one was. Every stage is a config in the work dir,
trained by tools/train.py, and can be trained by hand from there. See docs/own_data.md.
"""

import argparse
import math
import signal
import sys
from pathlib import Path


def add_images(parser):
    parser.add_argument(
        'images',
        help='folder, searched with all below it; LMDB database; or WebDataset shards: a '
        "folder of .tar files, or a quoted pattern 'shards/*.tar'",
    )
    parser.add_argument(
        '--image-size', type=number(int, 1), required=True, metavar='N', help='side of the pictures in pixels'
    )
    parser.add_argument('--channels', type=number(int, 1, 16), metavar='N', help='1 to 16 [those of the images]')
    parser.add_argument(
        '--value-range',
        type=number(float),
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='values that become black and white; needed for floats and 32 bits',
    )
    parser.add_argument(
        '--augment',
        choices=['crop', 'flip', 'none'],
        default='crop',
        help='crop: random resized crop and flip; flip: the middle square, or its mirror image; none: '
        'the middle square [crop]',
    )
    parser.add_argument(
        '--crop-scale',
        type=number(float, 0, 1),
        nargs=2,
        default=[0.2, 1.0],
        metavar=('MIN', 'MAX'),
        help="share of the image's area in a crop [0.2 1.0]",
    )
    parser.add_argument(
        '--views', type=number(int, 1), metavar='N', help='stored views of an image [crop: 8, flip: 2, none: 1]'
    )
    parser.add_argument(
        '--max-broken-share',
        type=number(float, 0, 1),
        default=0.01,
        metavar='X',
        help='share of broken images with which training stops; fewer are skipped [0.01]',
    )
    parser.add_argument(
        '--images-changed',
        choices=['error', 'keep'],
        default='error',
        help='what to do where images came or went since the work dir was begun: stop, or keep to the old list [error]',
    )


def add_stages(parser):
    parser.add_argument(
        '--size', choices=['nano', 'small', 'base', 'large'], default='small', help='of all three models [small]'
    )
    for stage in ('tokenizer', 'predictor', 'addp'):
        parser.add_argument(f'--{stage}-config', metavar='FILE', help=f'config with changes for the stage {stage}')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='STAGE.KEY=VALUE',
        help='change a setting of a '
        'stage, as tokenizer.max_iters=20000 addp.batch_size=128 addp.model.backbone.arch=base',
    )
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for everything that is written')
    parser.add_argument(
        '--restart-from',
        choices=['tokenizer', 'tokens', 'predictor', 'addp'],
        metavar='STAGE',
        help='remove this stage and all later ones from the work dir and do them anew: tokenizer, '
        'tokens, predictor, addp',
    )


def add_machine(parser):
    parser.add_argument(
        '--gpus',
        type=number(int, 1),
        metavar='N',
        help='processes that train, one a GPU [all GPUs; without one, a single process]',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch'],
        help='pytorch: tools/dist_train.sh, also for a single process [as --gpus needs]',
    )
    parser.add_argument(
        '--precision',
        choices=['auto', 'float32', 'bfloat16'],
        default='auto',
        help='auto: bfloat16 on GPUs that have it [auto]',
    )
    parser.add_argument(
        '--num-workers',
        type=number(int, 0),
        metavar='N',
        help='processes that load images, for each that trains [up to 4, as there are cores]',
    )


def add_results(parser):
    parser.add_argument(
        '--samples', type=number(int, 1), default=16, metavar='N', help='images to generate in the end [16]'
    )
    parser.add_argument(
        '--fid-extractor',
        metavar='CONFIG',
        help='measure the tokenizer by the Fréchet distance in '
        "features of the 'extractor' that this config defines, as configs/_base_/evaluation/*.py do",
    )
    parser.add_argument(
        '--inception-weights', metavar='FILE', help="measure rFID, with FID's Inception; a path or hf://"
    )
    parser.add_argument(
        '--lpips-weights', metavar='FILE', help="measure LPIPS, with torchvision's AlexNet; a path or hf://"
    )


def number(kind, least=-math.inf, most=math.inf):
    """What argparse turns a word into a number with, and refuses one outside a range."""

    def read(text):
        value = kind(text)
        if not (least <= value <= most and math.isfinite(value)):
            within = f'from {least} to {most}' if math.isfinite(most) else f'at least {least}'
            raise argparse.ArgumentTypeError(f'{text} must be {within if math.isfinite(least) else "finite"}')
        return value

    # argparse says 'invalid int value' for words that are no number
    read.__name__ = kind.__name__
    return read


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for title, add in (
        ('images', add_images),
        ('stages', add_stages),
        ('machine', add_machine),
        ('results', add_results),
    ):
        add(parser.add_argument_group(title))
    args = parser.parse_args(argv)
    from addp_mm.datasets.views.views import Views

    args.views = args.views or dict(crop=8, flip=2, none=1)[args.augment]
    args.work_dir = args.work_dir.absolute()
    if args.value_range and not args.value_range[0] < args.value_range[1]:
        parser.error('--value-range LOW HIGH: LOW must be below HIGH')
    try:
        Views(args.image_size, args.views, args.augment, tuple(args.crop_scale))
    except ValueError as error:
        parser.error(f'--views, --augment and --crop-scale: {error}')
    return args


def end(number, frame):
    """End as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def main(argv=None, execute=None):
    """Run the tool.

    Args:
        argv (list[str], optional): Command line.
        execute (Callable, optional): In place of starting a process: called with the command, the
            log and what tells the progress; returns the exit status.
    """
    args = parse_args(argv)
    from addp_mm.errors import reported_in_words
    from addp_mm.own_data.pipeline import Pipeline

    # names of files need not be Unicode
    sys.stdout.reconfigure(errors='backslashreplace')
    # a polite kill ends the training that runs as well
    previous = signal.signal(signal.SIGTERM, end)
    try:
        with reported_in_words(OSError):
            Pipeline(args, execute).run()
    except KeyboardInterrupt as interrupt:
        print(f'interrupted: the same command goes on with what is in {args.work_dir}', file=sys.stderr)
        # as a shell tells which signal ended a process
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == '__main__':
    main()
