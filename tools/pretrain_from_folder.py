# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train tokenizer, token predictor and ADDP on one's own images, one after the other.

    python tools/pretrain_from_folder.py photos --image-size 128 --size small --work-dir work_dirs/photos

The same command goes on where an interrupted one was. Every stage is a config in the work dir, trained by
tools/train.py, and can be trained by hand from there. See docs/own_data.md.
"""
import argparse
import signal
import sys
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='folder, searched with all below it; LMDB database; or WebDataset shards: a '
                        "folder of .tar files, or a quoted pattern 'shards/*.tar'")
    parser.add_argument('--image-size', type=int, required=True, metavar='N', help='side of the pictures in pixels')
    parser.add_argument('--size', choices=['nano', 'small', 'base', 'large'], default='small',
                        help='of all three models [small]')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for everything that is written')
    parser.add_argument('--channels', type=int, metavar='N', help='1 to 16 [those of the images]')
    parser.add_argument('--value-range', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                        help='values that become black and white; needed for floats and 32 bits')
    parser.add_argument('--augment', choices=['crop', 'flip', 'none'], default='crop',
                        help='crop: random resized crop and flip; flip: the middle square, or its mirror image; none: '
                        'the middle square [crop]')
    parser.add_argument('--crop-scale', type=float, nargs=2, default=[0.2, 1.0], metavar=('MIN', 'MAX'),
                        help="share of the image's area in a crop [0.2 1.0]")
    parser.add_argument('--views', type=int, metavar='N', help='stored views of an image [crop: 8, flip: 2, none: 1]')
    for stage in ('tokenizer', 'predictor', 'addp'):
        parser.add_argument(f'--{stage}-config', metavar='FILE', help=f'config with changes for the stage {stage}')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='STAGE.KEY=VALUE', help='change a setting of a '
                        'stage, as tokenizer.max_iters=20000 addp.batch_size=128 addp.model.backbone.arch=base')
    parser.add_argument('--gpus', type=int, metavar='N', help='processes that train, one a GPU [all GPUs; without one, '
                        'a single process]')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], help='pytorch: tools/dist_train.sh, also for a '
                        'single process [as --gpus needs]')
    parser.add_argument('--precision', choices=['auto', 'float32', 'bfloat16'], default='auto',
                        help='auto: bfloat16 on GPUs that have it [auto]')
    parser.add_argument('--num-workers', type=int, metavar='N', help='processes that load images, for each that trains '
                        '[up to 4, as there are cores]')
    parser.add_argument('--max-broken-share', type=float, default=0.01, metavar='X',
                        help='share of broken images with which training stops; fewer are skipped [0.01]')
    parser.add_argument('--samples', type=int, default=16, metavar='N', help='images to generate in the end [16]')
    parser.add_argument('--fid-extractor', metavar='CONFIG', help="measure the tokenizer by the Fréchet distance in "
                        "features of the 'extractor' that this config defines, as configs/_base_/evaluation/*.py do")
    parser.add_argument('--inception-weights', metavar='FILE', help="measure rFID, with FID's Inception; a path or hf://")
    parser.add_argument('--lpips-weights', metavar='FILE', help="measure LPIPS, with torchvision's AlexNet; a path or "
                        'hf://')
    parser.add_argument('--restart-from', choices=['tokenizer', 'tokens', 'predictor', 'addp'], metavar='STAGE',
                        help='remove this stage and all later ones from the work dir and do them anew: tokenizer, '
                        'tokens, predictor, addp')
    parser.add_argument('--images-changed', choices=['error', 'keep'], default='error', help='what to do where images '
                        'came or went since the work dir was begun: stop, or keep to the old list [error]')
    args = parser.parse_args(argv)
    args.views = args.views or dict(crop=8, flip=2, none=1)[args.augment]
    args.work_dir = args.work_dir.absolute()
    if min(args.image_size, args.gpus or 1, args.samples) < 1:
        parser.error('--image-size, --gpus and --samples must be at least 1')
    if args.channels is not None and not 1 <= args.channels <= 16:
        parser.error('--channels must be 1 to 16')
    return args


def main(argv=None, execute=None):
    """Run the tool.

    Args:
        argv (list[str], optional): Command line.
        execute (Callable, optional): In place of starting a process: called with the command, the log and what tells
            the progress; returns the exit status.
    """
    args = parse_args(argv)
    from own_data.pipeline import Pipeline

    from addp_mm.errors import reported_in_words

    # a polite kill ends the training that runs as well, as Ctrl-C does
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with reported_in_words(OSError):
            Pipeline(args, execute).run()
    except KeyboardInterrupt:
        sys.exit(f'interrupted: the same command goes on with what is in {args.work_dir}')
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == '__main__':
    main()
