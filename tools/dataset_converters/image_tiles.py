# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cut large pictures into tiles, for pre-training on few of them: satellite scenes, slides, photographs.

python tools/dataset_converters/image_tiles.py scans/*.tif --out tiles --tile 128 --shorter-side
1024
"""

import argparse
import json
import os
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from addp_mm.checkpoints.atomic_write import atomic_path, write_json
from addp_mm.config.paths import require_writable_folder
from addp_mm.datasets.readers.load_image import decode_image
from addp_mm.errors import UserError, first_few, reported_in_words

NOTE = 'tiles.json'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'images',
        nargs='+',
        type=Path,
        help='pictures of any size, grey or colour, of 8 or 16 bits; tiles are RGB of 8 bits',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder for the tiles, PICTURE_TOP_LEFT.png; '
        'a used one takes more tiles of the same --tile and --shorter-side',
    )
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
    return (
        path.is_file()
        and not path.is_symlink()
        and any(fnmatch(path.name, pattern) for pattern in only)
        and not any(fnmatch(path.name, pattern) for pattern in leave_out)
    )


def tiles(picture, side):
    """(top, left, tile) of all whole tiles, side by side from the upper left corner."""
    for top in range(0, picture.height - side + 1, side):
        for left in range(0, picture.width - side + 1, side):
            yield top, left, picture.crop((left, top, left + side, top + side))


def pictures_of(args):
    """The files to cut, by name.

    Raises:
        UserError: A path does not exist, nothing is left, or two pictures would have tiles of the
            same names.
    """
    missing = [path for path in args.images if not os.path.lexists(path)]
    if missing:
        raise UserError(f'{first_few(missing)}: no such file')
    paths = sorted(path for path in args.images if chosen(path, args.only, args.leave_out))
    if not paths:
        raise UserError(
            f'none of {len(args.images)} paths is a file to cut (links, --only and --leave-out leave files out)'
        )
    if len({path.stem for path in paths}) < len(paths):
        raise UserError('two pictures have the same name, so that tiles would replace each other')
    return paths


def claim(out, settings):
    """Make the folder one of tiles of these settings, or find that it already is.

    Raises:
        UserError: It holds something else, or tiles of other settings.
    """
    require_writable_folder(out, f'--out {out}')
    out.mkdir(parents=True, exist_ok=True)
    note = out / NOTE
    if not note.is_file() and any(not path.name.startswith('.') for path in out.iterdir()):
        raise UserError(f'--out {out} is not empty and holds no {NOTE}: name another folder')
    # a note without tiles is of a run that came to nothing
    if any(out.glob('*.png')):
        try:
            found = json.loads(note.read_text())
        except ValueError as error:
            raise UserError(f'{note} is damaged ({error}): name another --out') from error
        if found != settings:
            raise UserError(f'--out {out} holds tiles of other settings ({found}; now {settings}): name another folder')
    write_json(note, settings)


def read_picture(path, shorter_side):
    """A picture as RGB, with its shorter side of so many pixels if any are given.

    Raises:
        UserError: It cannot be read.
    """
    try:
        picture = Image.fromarray(decode_image(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: {error}. Mend it, or give --leave-out {path.name!r}') from error
    if not shorter_side:
        return picture
    scale = shorter_side / min(picture.size)
    return picture.resize([max(shorter_side, round(length * scale)) for length in picture.size], Image.BICUBIC)


def cut(paths, args):
    """Write the tiles of all pictures; returns what was done, in words.

    Raises:
        UserError: A picture cannot be read, or all are smaller than a tile.
    """
    # the limit is there for strangers' files; these are as large as one says, and each is decoded
    # once
    Image.MAX_IMAGE_PIXELS = None
    count, small = 0, []
    for path in tqdm(paths, unit='picture'):
        before, picture = count, read_picture(path, args.shorter_side)
        for top, left, tile in tiles(picture, args.tile):
            with atomic_path(args.out / f'{path.stem}_{top:04d}_{left:04d}.png') as partial:
                tile.save(partial, format='PNG')
            count += 1
        if count == before:
            small.append(f'{path} ({picture.width} x {picture.height})')
    if not count:
        raise UserError(
            f'{first_few(small)}: smaller than a tile of {args.tile} px. Give a smaller --tile, or enlarge '
            'with --shorter-side'
        )
    left_out = f'; smaller than a tile, and left out: {first_few(small)}' if small else ''
    return f'{args.out}: {count:,} tiles of {len(paths) - len(small):,} pictures{left_out}'


def main(argv=None):
    args = parse_args(argv)
    with reported_in_words(OSError):
        paths = pictures_of(args)
        claim(args.out, dict(tile=args.tile, shorter_side=args.shorter_side))
        print(cut(paths, args))


if __name__ == '__main__':
    main()
