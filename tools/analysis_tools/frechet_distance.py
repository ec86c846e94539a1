# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of two sets of images: FID, or a distance in the features of a backbone.

A set is a folder of images, or a .npz file that --out wrote. Images are read as RGB of 8 bits.
"""

import argparse
from pathlib import Path

from addp_mm.cli_options import add_renamed, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='folder of images, or .npz file of statistics')
    parser.add_argument('reference', nargs='?', help='folder or .npz file to compare them with')
    parser.add_argument(
        '--extractor',
        metavar='CONFIG',
        help="config file with an 'extractor', such as configs/_base_/evaluation/*.py [Inception with FID's weights]",
    )
    parser.add_argument('--weights', metavar='FILE', help='weights of Inception: a path or hf:// address [downloaded]')
    parser.add_argument(
        '--img-size',
        type=number(int, 1),
        metavar='PIXELS',
        help='resize the shorter side to this, and crop the centre [no resizing]',
    )
    parser.add_argument('--batch-size', type=number(int, 1), default=64, help='images in a batch [64]')
    parser.add_argument('--device', help='cpu, cuda or cuda:1 [cuda if there is a GPU]')
    parser.add_argument('--out', metavar='FILE', help='write the statistics of IMAGES to this .npz file')
    add_renamed(parser, old='--image-size', new='--img-size')
    add_renamed(parser, old='--save', new='--out')
    args = parser.parse_args(argv)
    if args.reference is None and args.out is None:
        parser.error('give a REFERENCE to compare with, or --out FILE')
    if args.extractor and args.weights:
        parser.error('--weights is for Inception and cannot be used with --extractor')
    return args


def main(argv=None):
    """Compute the statistics and print the distance."""
    args = parse_args(argv)
    from addp_mm.config.paths import require_writable
    from addp_mm.engine.device import choose_device
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.evaluation import FeatureStatistics, build_extractor, extractor_of, folder_statistics, frechet_distance

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        device = choose_device(args.device)
        if args.out:
            require_writable(args.out, '--out')
        sets = [name for name in (args.images, args.reference) if name is not None]
        folders = [name for name in sets if Path(name).is_dir()]
        inception = dict(type='addp_mm.InceptionFeatures', weights=args.weights)
        extractor = build_extractor(extractor_of(args.extractor) if args.extractor else inception) if folders else None
        statistics = [
            folder_statistics(name, extractor, args.img_size, args.batch_size, device)
            if name in folders
            else FeatureStatistics.load(name)
            for name in sets
        ]
        if args.out:
            statistics[0].save(args.out)
            print(f'{args.out}: {statistics[0].count} images, features of {statistics[0].extractor}')
        if args.reference:
            distance = frechet_distance(*statistics)
            what = 'FID' if statistics[0].extractor == 'inception-v3' else 'Fréchet distance (not FID)'
            print(
                f'{what}, features of {statistics[0].extractor}, {statistics[0].count} and {statistics[1].count} '
                f'images: {distance:.4f}'
            )


if __name__ == '__main__':
    main()
