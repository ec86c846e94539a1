# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fréchet distance of two sets of images: FID, or a distance in the features of a backbone.

A set is a folder of images, or a .npz that --save wrote. Images are read as RGB of 8 bits.
"""

import argparse
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='folder of images, or .npz of statistics')
    parser.add_argument('reference', nargs='?', help='what they are compared with: folder or .npz')
    parser.add_argument(
        '--extractor',
        metavar='CONFIG',
        help="config file that defines 'extractor', as configs/_base_/evaluation/*.py do "
        "[Inception with FID's weights]",
    )
    parser.add_argument('--weights', metavar='FILE', help="Inception's weights, a path or hf:// [downloaded]")
    parser.add_argument(
        '--image-size',
        type=int,
        metavar='PIXELS',
        help='resize the shorter side to this and cut out the middle, in memory [sizes as they are]',
    )
    parser.add_argument('--batch-size', type=int, default=64, help='images at once [64]')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, … [a GPU if there is one]')
    parser.add_argument('--save', metavar='FILE', help='write the statistics of IMAGES as .npz')
    args = parser.parse_args(argv)
    if args.reference is None and args.save is None:
        parser.error('give a REFERENCE to compare with, or --save FILE')
    if args.extractor and args.weights:
        parser.error('--weights is for Inception; the config of --extractor names its own')
    return args


def extractor_of(args):
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import UserError
    from addp_mm.evaluation import build_extractor

    if args.extractor is None:
        return build_extractor(dict(type='addp_mm.InceptionFeatures', weights=args.weights))
    cfg = load_config(args.extractor)
    if cfg.get('extractor') is None:
        raise UserError(f"{args.extractor} defines no 'extractor'")
    return build_extractor(cfg.extractor)


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.config.paths import require_writable
    from addp_mm.engine.device import choose_device
    from addp_mm.errors import reported_in_words
    from addp_mm.evaluation import FeatureStatistics, folder_statistics, frechet_distance

    with reported_in_words():
        device = choose_device(args.device)
        if args.save:
            require_writable(args.save, '--save')
        sets = [name for name in (args.images, args.reference) if name is not None]
        folders = [name for name in sets if Path(name).is_dir()]
        extractor = extractor_of(args) if folders else None
        statistics = [
            folder_statistics(name, extractor, args.image_size, args.batch_size, device)
            if name in folders
            else FeatureStatistics.load(name)
            for name in sets
        ]
        if args.save:
            statistics[0].save(args.save)
            print(f'{args.save}: {statistics[0].count} images, features of {statistics[0].extractor}')
        if args.reference:
            distance = frechet_distance(*statistics)
            what = 'FID' if statistics[0].extractor == 'inception-v3' else 'Fréchet distance (no FID)'
            print(
                f'{what}, features of {statistics[0].extractor}, {statistics[0].count} and {statistics[1].count} '
                f'images: {distance:.4f}'
            )


if __name__ == '__main__':
    main()
