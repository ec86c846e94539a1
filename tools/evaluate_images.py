# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure generated images: FID, IS, KID, precision and recall, in the features of any network.

    addp evaluate-images GENERATED REFERENCE                          # FID's Inception
    addp evaluate-images GENERATED REFERENCE --extractor addp-vit-nano-p8
    addp evaluate-images REFERENCE --img-size 256 --statistics ref.npz

GENERATED is a folder of images, or a .npz file with arr_0, uint8 (N, H, W, 3). REFERENCE is one of
these too, or a .npz file of statistics: mu and sigma as ADM writes them, or the file
of --statistics.
"""

import argparse

from addp_mm.cli_options import add_device_option, add_renamed, aligned, number


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='folder of images, or .npz file with images')
    parser.add_argument('reference', nargs='?', help='folder or .npz file to compare them with')
    parser.add_argument(
        '--metrics',
        nargs='+',
        action='extend',
        choices=['fid', 'is', 'kid', 'prc'],
        help='what to measure; prc: precision and recall [all that network and reference allow]',
    )
    parser.add_argument(
        '--extractor',
        metavar='CONFIG',
        help="config file with an 'extractor', or NAME of configs/_base_/evaluation/NAME_features.py "
        "[Inception with FID's weights]",
    )
    parser.add_argument('--weights', metavar='FILE', help='weights of Inception: a path or hf:// address [downloaded]')
    parser.add_argument(
        '--img-size',
        type=number(int, 1),
        metavar='PIXELS',
        help='resize the shorter side to this, and crop the centre [no resizing]',
    )
    parser.add_argument('--kid-subset-size', type=number(int, 2), default=1000, help='images in a subset of KID [1000]')
    parser.add_argument('--batch-size', type=number(int, 1), default=64, help='images in a batch [64]')
    add_device_option(parser)
    parser.add_argument(
        '--cache-dir', metavar='DIR', help='folder for the features of the reference [~/.cache/addp_mm/features]'
    )
    parser.add_argument('--no-cache', action='store_true', help='neither read nor keep features of the reference')
    parser.add_argument('--out', metavar='FILE', help='write the results to this JSON file')
    parser.add_argument('--statistics', metavar='FILE', help='write the statistics of IMAGES to this .npz file')
    add_renamed(parser, old='--image-size', new='--img-size')
    add_renamed(parser, old='--save', new='--statistics')
    args = parser.parse_args(argv)
    if args.reference is None and not args.statistics and args.metrics != ['is']:
        parser.error('give a REFERENCE to compare with, --metrics is, or --statistics FILE')
    if args.reference is None and args.metrics != ['is'] and args.out:
        parser.error('--out writes what was measured: give a REFERENCE, or --metrics is')
    if args.extractor and args.weights:
        parser.error('--weights is for Inception and cannot be used with --extractor')
    if args.cache_dir and args.no_cache:
        parser.error('--cache-dir and --no-cache exclude each other')
    return args


def chosen_scores(args, extractor, reference, num_images: int) -> list[str]:
    """The scores to compute; says which are left out, and why."""
    from addp_mm.errors import ConfigError
    from addp_mm.evaluation.compare_images import SCORES, check_scores, missing_for

    reasons = {score: missing_for(score, extractor, reference, num_images) for score in SCORES}
    if args.metrics:
        for score in check_scores(args.metrics):
            if reasons[score]:
                raise ConfigError(f'--metrics {score}: {reasons[score]}')
        return list(check_scores(args.metrics))
    if reference is None:
        return []
    for score, reason in reasons.items():
        if reason:
            print(f'--metrics {score} is left out: {reason}')
    scores = [score for score in SCORES if not reasons[score]]
    if not scores:
        raise ConfigError(f'nothing can be measured. --metrics fid: {reasons["fid"]}')
    return scores


def load_extractor(args):
    """The network of the options."""
    from addp_mm.evaluation import build_extractor

    return build_extractor(args.extractor or dict(type='addp_mm.InceptionFeatures', weights=args.weights))


def open_reference(args, extractor, device):
    """The reference of the options; None if there is none."""
    from addp_mm.evaluation import Reference
    from addp_mm.evaluation.feature_cache import default_cache_dir

    if args.reference is None:
        return None
    cache = None if args.no_cache else args.cache_dir or default_cache_dir()
    return Reference(args.reference, extractor, args.img_size, cache, args.batch_size, device)


def extract_images(args, images, extractor, device, keep):
    """Features, and logits or None, of the generated images; writes their statistics if asked."""
    import torch
    from tqdm import tqdm

    from addp_mm.evaluation import FeatureStatistics
    from addp_mm.evaluation.feature_cache import extract

    statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
    vectors, logits = [], []
    with tqdm(total=len(images), unit='image', desc=f'features of {args.images}') as bar:
        for found, scores in extract(images, extractor, batch_size=args.batch_size, device=device):
            if args.statistics:
                statistics.update(found)
            if keep:
                vectors.append(found)
                logits += [] if scores is None else [scores]
            bar.update(len(found))
    images.warn()
    if args.statistics:
        statistics.save(args.statistics)
        print(f'{args.statistics}: {statistics.count} images, features of {extractor.name}')
    return torch.cat(vectors) if keep else None, torch.cat(logits) if logits else None


def warn_about_sizes(images, reference) -> None:
    """Say so if the first images of both sets have different sizes."""
    if reference.images is None:
        return
    own, others = images.first_size(), reference.images.first_size()
    if own != others:
        print(
            f'warning: the first image of {images.path} has {own[0]}x{own[1]} px, that of {reference.path} '
            f'{others[0]}x{others[1]}. Bring both to one size: --img-size'
        )


def report(args, extractor, reference, count, values) -> dict:
    """Print the results, and return them with what they depend on."""
    print(f'{count} images, features of {extractor.name}')
    convention = None
    if reference is not None:
        convention = reference.convention
        print(f'compared with {args.reference}: {convention}')
        if not extractor.is_inception:
            print('a distance in these features is not an FID: compare it only with distances in the same features')
    rows = [[name, f'{value:.6f}' if name.startswith('kid') else f'{value:.4f}'] for name, value in values.items()]
    print(aligned(rows, numbers=True))
    return dict(
        metrics=values,
        images=dict(path=str(args.images), count=count),
        reference=dict(path=args.reference, convention=convention),
        extractor=dict(name=extractor.name, fingerprint=extractor.fingerprint),
        img_size=args.img_size,
    )


def run(args) -> None:
    """Compute the features and what was asked for."""
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.config.paths import require_writable
    from addp_mm.engine.device import choose_device
    from addp_mm.evaluation import open_images
    from addp_mm.evaluation.compare_images import NEED_FEATURES, compute_scores

    device = choose_device(args.device)
    for option in ('out', 'statistics'):
        if getattr(args, option):
            require_writable(getattr(args, option), f'--{option}')
    images = open_images(args.images, args.img_size)
    extractor = load_extractor(args)
    reference = open_reference(args, extractor, device)
    scores = chosen_scores(args, extractor, reference, len(images))
    if reference is not None and scores != ['is']:
        warn_about_sizes(images, reference)
        reference.prepare(any(score in NEED_FEATURES for score in scores))
    vectors, logits = extract_images(args, images, extractor, device, keep=bool(scores))
    if scores:
        values = compute_scores(scores, extractor, vectors, logits, reference, args.kid_subset_size)
        results = report(args, extractor, reference, len(images), values)
        if args.out:
            write_json(args.out, results)


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    kept = 'the features of the reference that are finished are kept; run the same command again'
    with exit_on_user_error(OSError), exit_on_interrupt(kept):
        run(args)


if __name__ == '__main__':
    main()
