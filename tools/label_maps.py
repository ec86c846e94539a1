# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write label maps for token labelling with any classifier: the best classes at each position.

    addp label-maps CONFIG work_dirs/NAME/epoch_100.pth photos/train --out photos/label_maps
    addp label-maps timm:MODEL weights.safetensors photos/train --out photos/label_maps

The whole image is resized to a square. The same command resumes after an interruption.
"""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import ToolParser, add_device_option, number

if TYPE_CHECKING:
    from addp_mm.datasets.token_labels.map_folder import MapFolder
    from addp_mm.label_maps.dense_classifier import DenseClassifier
    from addp_mm.label_maps.write_maps import MapWriter, Written

TIMM = 'timm:'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier (file, or name of a shipped config), or timm:MODEL')
    parser.add_argument('checkpoint', help='weights of the classifier: path or address')
    parser.add_argument('images', help='folder of the images, with all folders below it')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder of the label maps')
    parser.add_argument(
        '--img-size', type=number(int, 8), metavar='N', help='side of the square in pixels [that of the classifier]'
    )
    parser.add_argument('--top-k', type=number(int, 1), default=5, metavar='N', help='classes at each position [5]')
    parser.add_argument('--batch-size', type=number(int, 1), default=64, metavar='N', help='images in a batch [64]')
    parser.add_argument(
        '--num-workers',
        type=number(int, 0),
        default=min(4, os.cpu_count() or 1),
        metavar='N',
        help='processes that read images; 0: the main one [4, or the number of cores]',
    )
    add_device_option(parser)
    parser.add_argument('--amp', action='store_true', help='run the classifier in bfloat16')
    parser.add_argument(
        '--shard',
        default='0/1',
        metavar='I/N',
        help='write every N-th file, from number I (from 0); other processes write the others into the same DIR [0/1]',
    )
    parser.add_argument(
        '--images-per-file', type=number(int, 1), default=1024, metavar='N', help='label maps in a file [1024]'
    )
    parser.add_argument(
        '--figures', type=number(int, 0), default=0, metavar='N', help='draw the maps of N images into DIR/figures [0]'
    )
    parser.add_argument(
        '--max-broken-share',
        type=number(float, 0, 1),
        default=0.01,
        metavar='X',
        help='stop if more than this share of the images, plus ten, cannot be read [0.01]',
    )
    args = parser.parse_args(argv)
    shard = re.fullmatch(r'(\d+)/(\d+)', args.shard)
    if not shard or int(shard[1]) >= int(shard[2]):
        parser.error(f'--shard {args.shard}: expected I/N with I from 0 to N - 1')
    args.shard = int(shard[1]), int(shard[2])
    return args


def load_classifier(args: argparse.Namespace) -> 'DenseClassifier':
    """Build the classifier with its weights, on the CPU."""
    if args.config.startswith(TIMM):
        from addp_mm.label_maps.timm_classifier import load_timm_classifier

        return load_timm_classifier(args.config.removeprefix(TIMM), args.checkpoint, args.img_size)
    from addp_mm.label_maps.config_classifier import load_config_classifier

    return load_config_classifier(args.config, args.checkpoint)


def open_store(args: argparse.Namespace, classifier: 'DenseClassifier', names: Sequence[str]) -> 'MapFolder':
    """Start or continue the folder of label maps."""
    import torch

    from addp_mm.config.config_file import ConfigError
    from addp_mm.datasets.token_labels.map_folder import MOST_CLASSES, create_folder

    device = next(classifier.parameters()).device
    with torch.inference_mode():
        logits = classifier(torch.zeros(1, 3, args.img_size, args.img_size, device=device))
    _, num_classes, height, width = logits.shape
    if args.top_k > num_classes:
        raise ConfigError(f'--top-k {args.top_k}: the classifier has {num_classes} classes')
    if num_classes > MOST_CLASSES:
        raise ConfigError(f'the classifier has {num_classes:,} classes, and label maps can have {MOST_CLASSES:,}')
    settings = dict(
        num_classes=num_classes,
        top_k=args.top_k,
        map_size=[height, width],
        images_per_file=args.images_per_file,
        image_size=args.img_size,
        classifier=classifier.fingerprint(),
        amp=args.amp,
    )
    notes = dict(classifier=args.config, checkpoint=args.checkpoint, images=os.path.abspath(args.images))
    return create_folder(args.out, names, settings, notes)


def names_of_classes(args: argparse.Namespace, folders: dict[str, int] | None) -> list[str]:
    """Names of the classes: those of the config, else the folders."""
    if not args.config.startswith(TIMM):
        from addp_mm.label_maps.config_classifier import class_names

        found = class_names(args.config)
        if found:
            return found
    return list(folders or ())


def summary(args: argparse.Namespace, store: 'MapFolder', written: 'Written') -> str:
    """What was written, in a few lines."""
    from addp_mm.errors import first_few

    height, width = store.about['map_size']
    missing = store.missing()
    lines = [
        f'{args.out}: label maps of {written.images:,} images written, {height} x {width} positions, best '
        f'{args.top_k} of {store.about["num_classes"]} classes; {store.num_files - len(missing)} of {store.num_files} '
        'files exist'
    ]
    if written.labelled:
        share = written.agreeing / written.labelled
        lines.append(f"the best class of the mean map is that of the image's folder for {share:.1%} of the images")
        if share < 2 / store.about['num_classes']:
            lines.append(
                'warning: that is hardly more than chance. Either the classifier is not trained, or its classes are '
                'not the folders in sorted order'
            )
    if written.broken:
        names = first_few(name for name, _ in written.broken)
        lines.append(f'warning: {len(written.broken)} images could not be read and have no map: {names}')
    return '\n'.join(lines)


def write_missing(writer: 'MapWriter', shard: tuple[int, int]) -> 'Written':
    """Write the missing files of a shard with a progress bar, and check them.

    Args:
        writer: Writes the files.
        shard: Number of the shard, from 0, and number of all shards.
    """
    from tqdm import tqdm

    store, (index, count) = writer.store, shard
    own = range(index, store.num_files, count)
    missing = [one for one in store.missing() if one in own]
    total, to_do = (sum(len(store.rows(one)) for one in files) for files in (own, missing))
    with tqdm(total=total, initial=total - to_do, unit='img', desc=str(store.folder)) as bar:
        written = writer.write(missing, bar.update)
    for one in missing:  # their reader opens them, and checks their first maps
        store.read(store.open(one), 0, str(store.path(one)))
    return written


def run(args: argparse.Namespace) -> str:
    """Write the label maps that are missing; returns a summary."""
    from addp_mm.config.config_file import ConfigError
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.datasets.listed.open_images import image_name, open_images
    from addp_mm.datasets.token_labels.map_folder import as_bytes
    from addp_mm.engine.device import choose_device
    from addp_mm.label_maps.figures import draw_figures
    from addp_mm.label_maps.folder_classes import folder_classes
    from addp_mm.label_maps.write_maps import MapWriter

    device = choose_device(args.device)
    require_writable_folder(args.out, f'--out {args.out}')
    if args.figures and args.out.resolve().is_relative_to(Path(args.images).resolve()):
        raise ConfigError(f'--figures: --out {args.out} is below {args.images}, so the figures would become images')
    images = open_images(args.images)
    listed = [image_name(images, index).replace(os.sep, '/') for index in range(len(images))]
    classifier = load_classifier(args).to(device)
    args.img_size = args.img_size or classifier.image_size
    store = open_store(args, classifier, listed)
    order = sorted(range(len(listed)), key=lambda row: as_bytes(listed[row]))
    folders = folder_classes(listed, store.about['num_classes'])
    writer = MapWriter(
        store,
        images,
        order,
        classifier,
        image_size=args.img_size,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        amp=args.amp,
        classes=folders,
        max_broken_share=args.max_broken_share,
    )
    written = write_missing(writer, args.shard)
    if args.figures and not store.missing():
        draw_figures(args.out, images, listed, names_of_classes(args, folders), args.figures)
    return summary(args, store, written)


def main(argv: Sequence[str] | None = None) -> None:
    """Write label maps."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with (
        exit_on_interrupt(f'finished files are in {args.out}; the same command resumes'),
        exit_on_user_error(ValueError, OSError),
    ):
        print(run(args))


if __name__ == '__main__':
    main()
