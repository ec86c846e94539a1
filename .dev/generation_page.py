# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure generation with the nano weights, and write docs/benchmarks/generation.md.

Each number comes from a command of this package, which is printed and shown on the page. Finished
commands are not repeated, so that you can continue an interrupted run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from generation_report.cells import Commands, Model
from generation_report.page import predictor, write_page
from generation_report.steps import measure
from generation_report.study import SHORT, Extent, Study

from addp_mm.checkpoints.reading import resolve_asset
from addp_mm.checks.weights import require_checkpoint
from addp_mm.cli_options import add_device_option, number
from addp_mm.config.paths import require_file, require_writable
from addp_mm.errors import exit_on_interrupt, exit_on_user_error
from addp_mm.report.logs import LogError
from addp_mm.report.machine import cores

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/benchmarks/generation.md'
CONFIG = 'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px'
CLASS_CONFIG = 'addp_vit-nano-p8_class-cond_2xb16-fp32-4k_fashion-scenes-64px'
CLASS_WEIGHTS = 'addp_nano-p8_class-cond.safetensors'
EXTRACTOR = 'addp-vit-nano-p8'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/generation'), help='folder of all results [%(default)s]'
    )
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/fashion_scenes'), help='FashionScenes [%(default)s]'
    )
    parser.add_argument('--config', default=CONFIG, help='config of the unconditional weights [%(default)s]')
    parser.add_argument(
        '--checkpoint', default='addp_mm://addp_nano-p8.safetensors', help='unconditional weights [%(default)s]'
    )
    parser.add_argument(
        '--class-config', default=CLASS_CONFIG, help='config of weights with garments as classes [%(default)s]'
    )
    parser.add_argument(
        '--class-checkpoint', help=f'weights with garments as classes [addp_mm://{CLASS_WEIGHTS}, if it is shipped]'
    )
    parser.add_argument(
        '--earlier', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='earlier unconditional weights, to compare with'
    )
    parser.add_argument(
        '--extractors',
        nargs='+',
        action='extend',
        metavar='NAME',
        help=f'networks of the features; the first one is that of all tables [{EXTRACTOR}]',
    )
    parser.add_argument(
        '--predictor-work-dir', type=Path, metavar='DIR', help="work dir of the predictor's training, for its curve"
    )
    parser.add_argument('--num-images', type=number(int, 4), help='images in each cell [1000; with --short 10]')
    parser.add_argument(
        '--jobs', type=number(int, 1), default=min(2, cores()), metavar='N', help='commands at once [%(default)s]'
    )
    add_device_option(parser, 'cpu')
    parser.add_argument('--out', type=Path, metavar='FILE', help='page to write; its figures are in ../images [docs]')
    parser.add_argument(
        '--short',
        action='store_true',
        help='a few images and steps, to check that everything works; the page is written into the work dir',
    )
    return parser.parse_args(argv)


def study_of(args: argparse.Namespace) -> Study:
    """What the command line asks for."""
    shipped = (ROOT / 'addp_mm/assets' / CLASS_WEIGHTS).is_file()
    class_weights = args.class_checkpoint or (f'addp_mm://{CLASS_WEIGHTS}' if shipped else None)
    garments = None
    if class_weights:
        garments = Model('garments', args.class_config, class_weights, 'objects/val', ('--classes', 'all'))
    else:
        print(f'{CLASS_WEIGHTS} is not shipped: without --class-checkpoint, classes and guidance are left out')
    return Study(
        Commands(args.work_dir, args.data_root, args.num_images or (10 if args.short else 1000), args.device),
        SHORT if args.short else Extent(),
        Model('scenes', args.config, args.checkpoint, 'scenes/val'),
        garments,
        Model('earlier', *args.earlier, 'scenes/val') if args.earlier else None,
        tuple(args.extractors or [EXTRACTOR]),
    )


def main(argv: list[str] | None = None) -> None:
    """Measure, and write the page."""
    args = parse_args(argv)
    out = args.out or (args.work_dir / 'page/benchmarks/generation.md' if args.short else PAGE)
    with exit_on_user_error(LogError), exit_on_interrupt('finished commands are kept; run the same command again'):
        require_file(str(args.data_root / 'fashion_scenes.json'), '--data-root', ('.json',))
        require_writable(out, '--out')
        study = study_of(args)
        for model in study.models:
            require_checkpoint(resolve_asset(model.checkpoint))
        if args.predictor_work_dir:
            predictor(args.predictor_work_dir)  # a missing log is named before the measurements
        measure(study, args.jobs)
        write_page(study, out, args.predictor_work_dir)
    print(f'{out}: written')


if __name__ == '__main__':
    main()
