# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate images with a pre-trained ADDP: PNG files, a grid and the alternating steps.

Run the same command again to continue an interrupted run: complete images in the folder are kept.
The same seed gives the same images for every batch size.
"""

from pathlib import Path

from addp_mm.cli_options import ToolParser, number

SETTINGS_FILE = 'generation.json'


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config of the pre-training: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path or addp_mm://NAME')
    parser.add_argument('--out', required=True, help='folder for images/, grid.png and steps.png')
    parser.add_argument('--num-images', type=number(int, 1), default=16, help='images in the folder at the end [16]')
    parser.add_argument('--batch-size', type=number(int, 1), default=16, help='images that are generated together [16]')
    parser.add_argument('--steps', type=number(int, 1), default=20, help='alternating steps [20]')
    parser.add_argument(
        '--schedule',
        default='cosine',
        metavar='{cosine,linear,power:P}',
        help='how the share of masked tokens falls from step to step; power:P is 1 - progress^P [cosine]',
    )
    parser.add_argument(
        '--order',
        choices=['confidence', 'halton'],
        default='confidence',
        help='keep the most confident tokens of a step, or the next ones of a Halton sequence [confidence]',
    )
    parser.add_argument(
        '--temperature', type=number(float, 0), default=6.0, help='scale of the noise on the confidence [6.0]'
    )
    parser.add_argument('--constant-temperature', action='store_true', help='do not anneal the temperature to zero')
    parser.add_argument(
        '--top-p',
        type=number(float, 0, 1),
        default=1.0,
        help='sample from the most likely codes that sum to this probability [1.0]',
    )
    parser.add_argument('--top-k', type=number(int, 1), help='sample from so many most likely codes [all]')
    parser.add_argument(
        '--seed', type=number(int, -(2**63), 2**64 - 1), default=0, help='seed of all random numbers [0]'
    )
    parser.add_argument(
        '--grid', type=number(int, 0), default=64, help='largest number of images in grid.png; 0: no grid [64]'
    )
    parser.add_argument(
        '--show-steps', type=number(int, 0), default=1, help='images whose steps are in steps.png; 0: none [1]'
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... [a GPU if there is one]')
    return parser.parse_args(argv)


def settings_of(args) -> dict:
    """The settings that determine the pixels. All images of a folder have the same settings."""
    from addp_mm.checkpoints.file_fingerprint import file_fingerprint
    from addp_mm.checkpoints.reading import resolve_asset

    path = Path(resolve_asset(args.checkpoint))
    checkpoint = file_fingerprint(path) if path.is_file() else args.checkpoint
    return dict(
        config=Path(args.config).name,
        checkpoint=checkpoint,
        steps=args.steps,
        schedule=args.schedule,
        order=args.order,
        temperature=args.temperature,
        constant_temperature=args.constant_temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=args.seed,
    )


def schedule_of(args):
    """The schedule of the sampler, from the command line."""
    from addp_mm.generation import SamplingSchedule

    return SamplingSchedule(
        num_steps=args.steps,
        ratio=args.schedule,
        temperature=args.temperature,
        anneal=not args.constant_temperature,
        order=args.order,
        top_p=args.top_p,
        top_k=args.top_k,
    )


def is_complete(path: Path) -> bool:
    """Whether the file is a complete PNG with correct checksums."""
    from PIL import Image

    try:
        with Image.open(path, formats=['PNG']) as image:
            image.verify()
    except (OSError, SyntaxError):  # Pillow raises SyntaxError for a broken PNG
        return False
    return True


def write_images(sampler, args, out: Path) -> int:
    """Generate the images that are missing or broken in the folder; return their number."""
    import torch
    from PIL import Image
    from tqdm import tqdm

    from addp_mm.checkpoints.atomic_write import write_png
    from addp_mm.generation import image_generators
    from addp_mm.generation.figures import to_uint8

    paths = [out / 'images' / f'{index:06d}.png' for index in range(args.num_images)]
    missing = [index for index, path in enumerate(paths) if not is_complete(path)]
    generators = image_generators(args.num_images, torch.Generator().manual_seed(args.seed))
    with tqdm(total=len(missing) * args.steps, unit='step', desc=f'{len(missing)} images') as bar:
        for begin in range(0, len(missing), args.batch_size):
            batch = missing[begin : begin + args.batch_size]
            samples = sampler.complete(
                *sampler.blank(len(batch)), [generators[index] for index in batch], progress=bar.update
            )
            for index, image in zip(batch, to_uint8(samples.images), strict=True):
                write_png(paths[index], Image.fromarray(image))
    return len(missing)


def write_overviews(sampler, args, out: Path) -> None:
    """Write grid.png from the images, and steps.png from the first images, generated again."""
    import numpy as np
    import torch
    from PIL import Image

    from addp_mm.checkpoints.atomic_write import write_png
    from addp_mm.generation import image_generators
    from addp_mm.generation.figures import image_grid, steps_figure

    if args.grid:
        names = [out / 'images' / f'{index:06d}.png' for index in range(min(args.grid, args.num_images))]
        grid = image_grid([np.asarray(Image.open(name).convert('RGB')) for name in names])
        write_png(out / 'grid.png', Image.fromarray(grid))
    shown = min(args.show_steps, args.num_images)
    if shown:
        generators = image_generators(shown, torch.Generator().manual_seed(args.seed))
        steps = sampler.complete(*sampler.blank(shown), generators, keep_steps=True).steps
        size, codes = sampler.grid_size, len(sampler.model.tokenizer.codebook)
        figure = np.concatenate([steps_figure(steps, size, codes, image=i) for i in range(shown)])
        write_png(out / 'steps.png', Image.fromarray(figure))


def run(args) -> None:
    """Generate the images and the overviews."""
    from addp_mm.apis import load_model
    from addp_mm.config.output_folder import claim_folder
    from addp_mm.engine.device import choose_device
    from addp_mm.generation import AlternatingSampler

    device, out, schedule = choose_device(args.device), Path(args.out), schedule_of(args)
    model = load_model(args.config, args.checkpoint, device)
    sampler = AlternatingSampler(model, model.latent_size, schedule)
    claim_folder(out / 'images', out / SETTINGS_FILE, settings_of(args))
    written = write_images(sampler, args, out)
    write_overviews(sampler, args, out)
    print(f'{written} new image(s), {args.num_images} in all, in {out / "images"}')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt(f'finished images are in {args.out}; the same command goes on'), exit_on_user_error(OSError):
        run(args)


if __name__ == '__main__':
    main()
