# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate images with a pre-trained ADDP: PNGs, a grid and the alternating steps of the first ones.

Whole images already in the folder are kept, so that an interrupted run goes on where it stopped;
the same seed gives the same images whatever the batch size.
"""

import argparse
import hashlib
import json
from pathlib import Path

SETTINGS_FILE = 'generation.json'


class UsageError(ValueError):
    """Something about the arguments, in words for their writer."""


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {text}')
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise argparse.ArgumentTypeError(f'must be a number of 64 bits, got {text}')
    return number


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path or addp_mm://NAME')
    parser.add_argument('--out', required=True, help='folder for images/, grid.png, steps.png')
    parser.add_argument('--num-images', type=_positive, default=16, help='images in the folder in the end')
    parser.add_argument('--batch-size', type=_positive, default=16, help='images at a time')
    parser.add_argument('--steps', type=_positive, default=20, help='alternating steps')
    parser.add_argument('--schedule', choices=['cosine', 'linear'], default='cosine', help='of the masked share')
    parser.add_argument('--temperature', type=float, default=6.0, help='of the noise on the confidence')
    parser.add_argument('--constant-temperature', action='store_true', help='do not anneal the temperature to zero')
    parser.add_argument('--top-p', type=float, default=1.0, help='draw from the most likely codes up to this share')
    parser.add_argument('--seed', type=_seed, default=0, help='seed of all noise')
    parser.add_argument('--grid', type=int, default=64, help='images of grid.png at most, 0 for no grid')
    parser.add_argument('--show-steps', type=int, default=1, help='images whose steps are drawn, 0 for none')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    return parser.parse_args(argv)


def settings_of(args) -> dict:
    """What decides about the pixels: images of other settings do not belong into one folder."""
    from addp_mm.checkpoints.reading import resolve_asset

    path = Path(resolve_asset(args.checkpoint))
    checkpoint = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else args.checkpoint
    return dict(
        config=Path(args.config).name,
        checkpoint=checkpoint,
        steps=args.steps,
        schedule=args.schedule,
        temperature=args.temperature,
        constant_temperature=args.constant_temperature,
        top_p=args.top_p,
        seed=args.seed,
    )


def claim(out: Path, settings: dict) -> None:
    """Make the folder this run's, or find that it already is.

    Settings without an image bind nobody: a run may end before its first one.

    Raises:
        UsageError: If it holds images of other settings.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f'--out {out} is a file, not a folder')
    record, images = out / SETTINGS_FILE, out / 'images'
    images.mkdir(parents=True, exist_ok=True)
    if not record.is_file() and any(images.iterdir()):
        raise UsageError(f'{images} holds files but {record} is missing: choose another --out')
    if not any(images.glob('*.png')):
        write(record, json.dumps(settings, indent=2).encode())
        return
    try:
        found = json.loads(record.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f'{record} is not readable ({error}): choose another --out') from error
    changed = [f'{key} {found.get(key)} -> {value}' for key, value in settings.items() if found.get(key) != value]
    if changed:
        raise UsageError(
            f'{out} holds images of other settings ({"; ".join(changed)}): choose another --out, or remove that folder'
        )


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    from addp_mm.checkpoints.atomic_write import atomic_path

    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_png(path: Path, picture) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format='PNG')
    write(path, buffer.getvalue())


def is_whole(path: Path) -> bool:
    """Whether there is a PNG whose checksums are right; a copy or a full disk may have left a part of one."""
    from PIL import Image

    try:
        with Image.open(path, formats=['PNG']) as picture:
            picture.verify()
    except (OSError, SyntaxError):  # Pillow's words for a broken PNG
        return False
    return True


def write_images(sampler, args, out: Path) -> int:
    """Generate the images that the folder lacks or that are broken there; returns how many these were."""
    import torch
    from tqdm import tqdm

    from addp_mm.generation import image_generators
    from addp_mm.generation.figures import to_uint8

    paths = [out / 'images' / f'{index:06d}.png' for index in range(args.num_images)]
    missing = [index for index, path in enumerate(paths) if not is_whole(path)]
    generators = image_generators(args.num_images, torch.Generator().manual_seed(args.seed))
    with tqdm(total=len(missing) * args.steps, unit='step', desc=f'{len(missing)} images') as bar:
        for begin in range(0, len(missing), args.batch_size):
            batch = missing[begin : begin + args.batch_size]
            samples = sampler.complete(
                *sampler.blank(len(batch)), [generators[index] for index in batch], progress=bar.update
            )
            for index, picture in zip(batch, to_uint8(samples.images), strict=True):
                write_png(paths[index], picture)
    return len(missing)


def write_overviews(sampler, args, out: Path) -> None:
    """Write grid.png from the images, and steps.png by generating the first ones again."""
    import numpy as np
    import torch
    from PIL import Image

    from addp_mm.generation import image_generators
    from addp_mm.generation.figures import image_grid, steps_figure

    if args.grid > 0:
        names = [out / 'images' / f'{index:06d}.png' for index in range(min(args.grid, args.num_images))]
        write_png(out / 'grid.png', image_grid([np.asarray(Image.open(name).convert('RGB')) for name in names]))
    shown = min(args.show_steps, args.num_images)
    if shown > 0:
        generators = image_generators(shown, torch.Generator().manual_seed(args.seed))
        steps = sampler.complete(*sampler.blank(shown), generators, keep_steps=True).steps
        size, codes = sampler.grid_size, len(sampler.model.tokenizer.codebook)
        write_png(out / 'steps.png', np.concatenate([steps_figure(steps, size, codes, image=i) for i in range(shown)]))


def run(args) -> None:
    from addp_mm.apis import load_model
    from addp_mm.engine.device import choose_device
    from addp_mm.generation import AlternatingSampler

    device, out = choose_device(args.device), Path(args.out)
    model = load_model(args.config, args.checkpoint, device)
    try:
        sampler = AlternatingSampler(
            model,
            model.latent_size,
            args.steps,
            args.schedule,
            args.temperature,
            not args.constant_temperature,
            args.top_p,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    claim(out, settings_of(args))
    written = write_images(sampler, args, out)
    write_overviews(sampler, args, out)
    print(f'{written} new image(s), {args.num_images} in all, in {out / "images"}')


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.errors import reported_in_words

    with reported_in_words(UsageError, OSError):
        run(args)


if __name__ == '__main__':
    main()
