# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run generation, pre-training and three downstream tasks, and write one report.

Each step calls a tool of this repository, and its command is printed. Finished steps are not
repeated, so that you can continue an interrupted demo. The report is work_dirs/demo/report.html.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from demo_report.demo_page import DemoRun, build_page
from demo_report.finetunings import ADDP_WEIGHTS, ASSETS, ROOT, finetunings

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import StepError, StepRunner, clock
from addp_mm.cli_options import number
from addp_mm.report.logs import LogError
from addp_mm.report.machine import cores

PRETRAIN_CONFIG = Path('configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')
PRETRAIN_ITERS = 50
# If these files change, the scenes are out of date; the error of the tool has a remedy.
SCENE_SOURCES = (Path('addp_mm/datasets/fashion/fashion_scenes.py'), ASSETS / 'fashion_mnist_subset.npz')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--short',
        action='store_true',
        help='a few iterations and images, to check that everything works; writes work_dirs/demo_short',
    )
    parser.add_argument(
        '--jobs',
        type=number(int, 1),
        default=min(2, cores()),
        metavar='N',
        help='steps at once, of about 1.5 GB each (default: 2, or 1 on one core)',
    )
    return parser.parse_args(argv)


def plan(folder: Path, short: bool) -> DemoRun:
    """The steps of the demo in ``folder``; nothing is run."""
    data_root = folder / 'fashion_scenes' if short else Path('data/fashion_scenes')
    sizes = ['--train', '64', '--val', '16', '--objects-train', '64', '--objects-val', '32'] if short else []
    scenes = Step(
        'scenes',
        'Write FashionScenes',
        ('tools/dataset_converters/fashion_scenes.py', str(data_root), *sizes, '--num-workers', '2'),
        (data_root / 'fashion_scenes.json',),
        SCENE_SOURCES,
    )
    config, iters = PRETRAIN_CONFIG, 4 if short else PRETRAIN_ITERS
    options = [
        f'load_from={ADDP_WEIGHTS}',
        f'train_cfg.max_iters={iters}',
        'optim_wrapper.optimizer.lr=1e-4',
        f'custom_hooks.0.preview_interval={iters // 2}',
        f'default_hooks.logger.interval={max(1, iters // 25)}',
    ]
    if short:
        options += [f'train_dataloader.dataset.data_root={data_root}/', 'train_dataloader.batch_size=8']
    pretrain = Step(
        'pretrain',
        'Continue the pre-training of ADDP',
        ('tools/train.py', str(config), '--work-dir', str(folder / 'pretrain'), '--cfg-options', *options),
        (folder / 'pretrain' / f'iter_{iters}.pth',),
        (ADDP_WEIGHTS,),
        (scenes,),
        folder / 'pretrain',
        (config,),
    )
    samples = folder / 'samples'
    # The published temperature of 6 is for 256 tokens. With 64 tokens the order of unmasking would
    # be almost random.
    sampling = (
        '--temperature',
        '2',
        '--top-p',
        '0.95',
        *(('--num-images', '4', '--steps', '4') if short else ('--num-images', '64')),
    )
    generate = Step(
        'generate',
        'Generate images',
        ('tools/generate.py', str(config), str(ADDP_WEIGHTS), '--out', str(samples), *sampling),
        (samples / 'grid.png', samples / 'steps.png'),
        (ADDP_WEIGHTS,),
        (),
        samples,
        (config,),
    )
    runs = finetunings(folder, [0], data_root if short else None, 4 if short else None)
    trained = [run.steps(after=(scenes,)) for run in runs]
    steps = [scenes, generate, pretrain, *(step for pair in trained for step in pair)]
    return DemoRun(folder / 'pretrain', samples, data_root, runs, {step.name: step for step in steps}, {}, short)


def main(argv: list[str] | None = None) -> None:
    """Run the demo."""
    args = parse_args(argv)
    os.chdir(ROOT)
    if not ADDP_WEIGHTS.is_file():
        sys.exit(f'error: {ADDP_WEIGHTS} is missing: the checkout is incomplete. Clone the repository again')
    folder = Path('work_dirs/demo_short' if args.short else 'work_dirs/demo')
    began = time.monotonic()
    demo = plan(folder, args.short)
    try:
        done = StepRunner(folder, args.jobs, max(1, cores() // args.jobs)).run(list(demo.steps.values()))
        report = folder / 'report.html'
        size = build_page(replace(demo, done=done)).write(report)
    except (StepError, LogError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'\ninterrupted; `python {" ".join(sys.argv)}` continues at this step')
    print(f'{report}: {size / 1e6:.1f} MB, after {clock(time.monotonic() - began)} minutes. Open it in a browser.')


if __name__ == '__main__':
    main()
