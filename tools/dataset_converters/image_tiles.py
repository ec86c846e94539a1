# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cut large pictures into tiles, for pre-training on few of them: satellite scenes, slides, photographs.

    python tools/dataset_converters/image_tiles.py scans/*.tif --out tiles --tile 128 --shorter-side 1024
"""
import argparse
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from addp_mm.datasets.load_image import decode_image


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', type=Path,
                        help='pictures of any size, grey or colour, of 8 or 16 bits; tiles are RGB of 8 bits')
    parser.add_argument('--out', type=Path, required=True, help='folder for the tiles, PICTURE_TOP_LEFT.png')
    parser.add_argument('--tile', type=int, default=128, help='side of a tile in pixels [%(default)s]')
    parser.add_argument('--shorter-side', type=int, metavar='PX', help='resize pictures to this first [as they are]')
    parser.add_argument('--only', nargs='*', metavar='PATTERN', default=['*'], help='file names to take, with * and ?')
    parser.add_argument('--leave-out', nargs='*', metavar='PATTERN', default=[], help='file names to leave out')
    args = parser.parse_args(argv)
    if args.tile < 1 or (args.shorter_side is not None and args.shorter_side < args.tile):
        parser.error('--tile must be at least 1, and --shorter-side no less than --tile')
    return args


def chosen(path, only, leave_out):
    """Whether a file is to be cut. Links are not: what they point to is there by its own name."""
    return (path.is_file() and not path.is_symlink() and any(fnmatch(path.name, pattern) for pattern in only)
            and not any(fnmatch(path.name, pattern) for pattern in leave_out))


def tiles(picture, side):
    """(top, left, tile) of all whole tiles, side by side from the upper left corner."""
    for top in range(0, picture.height - side + 1, side):
        for left in range(0, picture.width - side + 1, side):
            yield top, left, picture.crop((left, top, left + side, top + side))


def main(argv=None):
    args = parse_args(argv)
    paths = sorted(path for path in args.images if chosen(path, args.only, args.leave_out))
    if not paths:
        raise SystemExit(f'error: none of {len(args.images)} paths is a file to cut (links, --only and --leave-out '
                         'leave files out)')
    if len({path.stem for path in paths}) < len(paths):
        raise SystemExit('error: two pictures have the same name, so that tiles would replace each other')
    args.out.mkdir(parents=True, exist_ok=True)
    # the limit is there for strangers' files; these are as large as one says, and each is decoded once
    Image.MAX_IMAGE_PIXELS = None
    count = 0
    for path in tqdm(paths, unit='picture'):
        try:
            picture = Image.fromarray(decode_image(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise SystemExit(f'error: {path}: {error}. Mend it, or give --leave-out {path.name!r}') from error
        if args.shorter_side:
            scale = args.shorter_side / min(picture.size)
            size = [max(args.shorter_side, round(length * scale)) for length in picture.size]
            picture = picture.resize(size, Image.BICUBIC)
        for top, left, tile in tiles(picture, args.tile):
            tile.save(args.out / f'{path.stem}_{top:04d}_{left:04d}.png')
            count += 1
    print(f'{args.out}: {count:,} tiles of {len(paths):,} pictures')


if __name__ == '__main__':
    main()
