# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cut large images into tiles for pre-training: satellite scenes, slides, photographs.

    python tools/dataset_converters/image_tiles.py scans/*.tif --out tiles --shorter-side 1024

Give --tile for the side of the tiles.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from addp_mm.checkpoints.atomic_write import write_png
from addp_mm.cli_options import number
from addp_mm.config.output_folder import claim_folder
from addp_mm.errors import UserError, exit_on_interrupt, exit_on_user_error, first_few
from addp_mm.extensions import OPENCV_LIMIT

NOTE = 'tiles.json'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'images', nargs='+', type=Path, help='images of any size, grey or colour, 8 or 16 bits; tiles are 8-bit RGB'
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder for the tiles, IMAGE_TOP_LEFT.png; it may contain tiles of the same --tile and --shorter-side',
    )
    parser.add_argument('--tile', type=number(int, 1), default=128, metavar='PX', help='side of a tile in pixels [128]')
    parser.add_argument(
        '--shorter-side', type=number(int, 1), metavar='PX', help='resize the images to this first [no resizing]'
    )
    parser.add_argument(
        '--only', nargs='*', action='extend', metavar='PATTERN', help='file names to use, with * and ? [all]'
    )
    parser.add_argument(
        '--leave-out', nargs='*', action='extend', metavar='PATTERN', default=[], help='file names to skip'
    )
    args = parser.parse_args(argv)
    args.only = ['*'] if args.only is None else args.only
    if args.tile < 1 or (args.shorter_side is not None and args.shorter_side < args.tile):
        parser.error('--tile must be at least 1, and --shorter-side at least --tile')
    return args


def chosen(path: Path, only: Sequence[str], leave_out: Sequence[str]) -> bool:
    """Whether to cut a file. Links are skipped, because their targets may be among the images."""
    return (
        path.is_file()
        and not path.is_symlink()
        and any(fnmatch(path.name, pattern) for pattern in only)
        and not any(fnmatch(path.name, pattern) for pattern in leave_out)
    )


def tiles(image: Image.Image, side: int) -> Iterator[tuple[int, int, Image.Image]]:
    """(top, left, tile) of all complete tiles, side by side from the upper left corner."""
    for top in range(0, image.height - side + 1, side):
        for left in range(0, image.width - side + 1, side):
            yield top, left, image.crop((left, top, left + side, top + side))


def images_of(args: argparse.Namespace) -> list[Path]:
    """The files to cut, sorted.

    Raises:
        UserError: A path does not exist, no file remains, or two files would have tiles of the same
            names.
    """
    missing = [path for path in args.images if not os.path.lexists(path)]
    if missing:
        raise UserError(f'{first_few(missing)} does not exist')
    paths = sorted(path for path in args.images if chosen(path, args.only, args.leave_out))
    if not paths:
        raise UserError(
            f'none of {len(args.images)} paths is a file to cut (links are skipped; see also --only and --leave-out)'
        )
    if len({path.stem for path in paths}) < len(paths):
        raise UserError('two images have the same name, so their tiles would replace each other')
    return paths


def read_resized(path: Path, shorter_side: int | None) -> Image.Image:
    """Read an image as RGB and resize its shorter side, unless ``shorter_side`` is None.

    Raises:
        UserError: The image cannot be read.
    """
    from addp_mm.datasets.readers.read_image import read_rgb

    try:
        image = Image.fromarray(read_rgb(path))
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: {error}. Repair it, or give --leave-out {path.name!r}') from error
    if not shorter_side:
        return image
    scale = shorter_side / min(image.size)
    width, height = (max(shorter_side, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def cut(paths: Sequence[Path], args: argparse.Namespace) -> str:
    """Write the tiles of all images; returns a summary.

    Raises:
        UserError: An image cannot be read, or all are smaller than a tile.
    """
    # Pillow's limit is for untrusted files. These are the user's own, and each is decoded once.
    Image.MAX_IMAGE_PIXELS = None
    os.environ[OPENCV_LIMIT] = str(2**40)  # OpenCV reads it when it is imported
    count, small = 0, []
    for path in tqdm(paths, unit='image'):
        before, image = count, read_resized(path, args.shorter_side)
        for top, left, tile in tiles(image, args.tile):
            write_png(args.out / f'{path.stem}_{top:04d}_{left:04d}.png', tile)
            count += 1
        if count == before:
            small.append(f'{path} ({image.width} x {image.height})')
    if not count:
        raise UserError(
            f'{first_few(small)}: smaller than a tile of {args.tile} px. Give a smaller --tile, or enlarge '
            'with --shorter-side'
        )
    left_out = f'; smaller than a tile, and skipped: {first_few(small)}' if small else ''
    return f'{args.out}: {count:,} tiles of {len(paths) - len(small):,} images{left_out}'


def main(argv: Sequence[str] | None = None) -> None:
    """Cut the images."""
    args = parse_args(argv)
    with (
        exit_on_interrupt(f'{args.out} is not complete; the same command writes all tiles'),
        exit_on_user_error(OSError),
    ):
        paths = images_of(args)
        claim_folder(args.out, args.out / NOTE, dict(tile=args.tile, shorter_side=args.shorter_side))
        print(cut(paths, args))


if __name__ == '__main__':
    main()
