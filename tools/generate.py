# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate images with a pre-trained ADDP: image files, a grid and the alternating steps.

    addp generate CONFIG CHECKPOINT --out DIR --num-images 50000 --npz

Run the same command again to continue an interrupted run: complete images in the folder are kept.
The same seed gives the same images for every batch size and number of processes.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import ToolParser, add_device_option, add_launcher_options, number, parse_runner_args
from addp_mm.sampling_options import (
    add_sampling_options,
    check_guidance,
    classes_of,
    guidance_of,
    schedule_of,
    settings_of,
)

if TYPE_CHECKING:
    import torch

    from addp_mm.generation import AlternatingSampler
    from addp_mm.generation.image_folder import BatchWriter

LAUNCH = (
    'python -m addp_mm.torchrun --nproc-per-node PROCESSES -m addp_mm generate CONFIG CHECKPOINT --out DIR '
    '--launcher pytorch'
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pre-training: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path or addp_mm://NAME')
    parser.add_argument('--out', required=True, help='folder for images/, grid.png and steps.png')
    parser.add_argument('--num-images', type=number(int, 1), default=16, help='images in the folder at the end [16]')
    parser.add_argument(
        '--batch-size', type=number(int, 1), default=16, help='images that a process generates together [16]'
    )
    add_sampling_options(parser)
    parser.add_argument(
        '--format', choices=['png', 'webp'], default='png', help='format of the images, both are lossless [png]'
    )
    parser.add_argument(
        '--npz',
        action='store_true',
        help='also write DIR/images.npz for evaluation suites: arr_0, uint8 (N, height, width, 3); with --classes '
        'also arr_1, the class of each image',
    )
    parser.add_argument(
        '--trajectories',
        action='store_true',
        help='also write DIR/trajectories: the token ids, the step that kept each of them, and its log-probability',
    )
    parser.add_argument(
        '--grid', type=number(int, 0), default=64, help='largest number of images in grid.png; 0: no grid [64]'
    )
    parser.add_argument(
        '--show-steps', type=number(int, 0), default=1, help='images whose steps are in steps.png; 0: none [1]'
    )
    parser.add_argument('--amp', action='store_true', help='run the model in bfloat16')
    parser.add_argument(
        '--compile',
        action='store_true',
        help="compile the model's calls, on a GPU with CUDA graphs: for many images of one batch size",
    )
    add_device_option(parser)
    add_launcher_options(parser)
    args = parse_runner_args(parser, argv)
    check_guidance(parser, args)
    return args


def build_sampler(args: argparse.Namespace, device: 'torch.device') -> 'AlternatingSampler':
    """Load the model; its sampler has the schedule and the guidance of the command line."""
    from addp_mm.apis import load_model
    from addp_mm.generation import AlternatingSampler

    schedule = schedule_of(args)  # its errors come before the model is loaded
    model = load_model(args.config, args.checkpoint, device)
    compile_args = dict(mode='reduce-overhead') if args.compile else None  # CUDA graphs
    return AlternatingSampler(model, model.latent_size, schedule, guidance_of(args), compile_args)


def own_device(args: argparse.Namespace) -> 'torch.device':
    """The device of this process, which joins the others of its launcher."""
    from addp_mm.checks.launch import check_launcher
    from addp_mm.engine.device import choose_device
    from addp_mm.engine.process_group import start_process_group
    from addp_mm.errors import ConfigError

    check_launcher(args.launcher, command=LAUNCH)
    start_process_group(args.launcher)
    device = choose_device(args.device)
    if args.launcher != 'none' and device.index is not None:
        raise ConfigError(f'--device {args.device}: all processes would share it. Leave --device out with --launcher')
    return device


def write_images(writer: 'BatchWriter', missing: list[int], args: argparse.Namespace) -> None:
    """Generate the missing images, in all processes, and wait for the others."""
    from mmengine import dist

    from addp_mm.generation.image_folder import Progress, missing_batches

    rank, world = dist.get_dist_info()
    batches = missing_batches(missing, args.num_images, args.batch_size)
    if rank == 0 and 0 < len(batches) < world:
        print(f'{len(batches)} batch(es) for {world} processes: a smaller --batch-size gives work to all')
    with Progress(writer.files, args.num_images, len(missing), alone=world == 1, shown=rank == 0) as progress:
        writer.write(batches[rank::world], missing, progress.advance)
        dist.barrier()
        progress.count_files()


def write_overviews(writer: 'BatchWriter', args: argparse.Namespace, out: Path) -> None:
    """Write grid.png from the images, and steps.png from the first images, generated again."""
    import numpy as np
    from PIL import Image

    from addp_mm.checkpoints.atomic_write import write_png
    from addp_mm.generation import image_generator
    from addp_mm.generation.figures import image_grid, steps_figure

    if args.grid:
        grid = image_grid([writer.files.read(index) for index in range(min(args.grid, args.num_images))])
        write_png(out / 'grid.png', Image.fromarray(grid))
    shown = range(min(args.show_steps, args.num_images))
    if shown:
        sampler = writer.sampler
        generators = [image_generator(args.seed, index) for index in shown]
        labels = writer.labels(shown)
        steps = sampler.complete(*sampler.blank(len(shown)), generators, labels, keep_steps=True).steps
        size, codes = sampler.grid_size, len(sampler.model.tokenizer.codebook)
        figure = np.concatenate([steps_figure(steps, size, codes, image=i) for i in shown])
        write_png(out / 'steps.png', Image.fromarray(figure))


def write_archive(writer: 'BatchWriter', num_images: int, path: Path) -> None:
    """Write one .npz file with the images of the folder."""
    from tqdm import tqdm

    from addp_mm.generation.image_folder import write_npz

    numbers = range(num_images)
    with tqdm(numbers, unit='img', desc=path.name) as bar:
        write_npz(path, map(writer.files.read, bar), num_images, writer.labels(numbers))


def run(args: argparse.Namespace) -> None:
    """Generate the images and the overviews."""
    from mmengine import dist

    from addp_mm.checkpoints.atomic_write import remove_partials
    from addp_mm.config.output_folder import GENERATION, claim_folder
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.engine.process_group import in_main_process
    from addp_mm.folder_lock import lock_folder
    from addp_mm.generation.image_folder import BatchWriter, ImageFiles
    from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles

    out = Path(args.out)
    files = ImageFiles(out / 'images', args.format)
    trajectories = TrajectoryFiles(out / 'trajectories') if args.trajectories else None
    sampler = build_sampler(args, own_device(args))
    classes = classes_of(args, sampler.num_classes)
    settings = dict(settings_of(args, sampler.model, classes), amp=args.amp)
    writer = BatchWriter(sampler, files, args.seed, classes, args.amp, trajectories=trajectories, settings=settings)
    with ExitStack() as held:

        def claim() -> list[int]:
            require_writable_folder(out, f'--out {out}')
            held.enter_context(lock_folder(out))
            claim_folder(files.folder, out / GENERATION, dict(settings, format=args.format))
            remove_partials(out)
            missing = {*files.missing(args.num_images)}
            if trajectories is not None:
                missing.update(trajectories.missing(args.num_images))
            return sorted(missing)

        missing = in_main_process(claim)
        write_images(writer, missing, args)
        if dist.is_main_process():
            write_overviews(writer, args, out)
            if args.npz:
                write_archive(writer, args.num_images, out / 'images.npz')
            print(f'{len(missing)} new image(s), {args.num_images} in all, in {files.folder}')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.engine.process_group import close_process_group
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    alone = args.launcher == 'none'
    with (
        exit_on_interrupt(f'finished images are in {args.out}; the same command goes on', with_sigterm=alone),
        exit_on_user_error(OSError),
    ):
        run(args)
        close_process_group()


if __name__ == '__main__':
    main()
    from addp_mm.engine.process_group import end_process

    end_process()
