# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate a part of an image again with a pre-trained ADDP: inpainting, outpainting, editing.

IMAGE is a file of any size, or a folder. Give the part by --mask, --box or --outpaint. Pixels
outside it stay as they are. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm import sampling_options
from addp_mm.cli_options import ToolParser, add_device_option, number

if TYPE_CHECKING:
    from addp_mm.generation.edits import Edit
    from addp_mm.generation.trajectories.edit_trajectories import EditTrajectories

SHOWN_SAMPLES, SMALLEST_PANEL, LARGEST_PANEL = 8, 128, 512


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config of the pre-training: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training: a path or addp_mm://NAME')
    parser.add_argument('image', help='an image, or a folder of images')
    parser.add_argument('--out', required=True, help='folder for images/SAMPLE/NAME.png and figures/NAME.png')
    parser.add_argument(
        '--mask',
        metavar='PATH',
        help='an image of the same size, white where to generate; or a folder of masks with the names of the images',
    )
    parser.add_argument('--invert-mask', action='store_true', help='generate where the mask is black')
    parser.add_argument('--box', type=whole_numbers('X,Y,W,H', 0), metavar='X,Y,W,H', help='generate in this rectangle')
    parser.add_argument(
        '--outpaint',
        type=whole_numbers('LEFT,TOP,RIGHT,BOTTOM', 0),
        metavar='LEFT,TOP,RIGHT,BOTTOM',
        help='generate so many pixels beyond each side of the image',
    )
    parser.add_argument('--num-samples', type=number(int, 1), default=4, help='samples of each image [4]')
    parser.add_argument('--batch-size', type=number(int, 1), default=16, help='tiles that are generated together [16]')
    parser.add_argument(
        '--reconstruction', action='store_true', help='decode known tokens too, instead of keeping their pixels'
    )
    parser.add_argument(
        '--overlap', type=number(int, 0), help='tokens that neighbouring tiles of a large image share [half a tile]'
    )
    parser.add_argument(
        '--trajectories',
        action='store_true',
        help='also write DIR/trajectories: the token ids, the step that kept each of them, and its log-probability; '
        'for masks that fit into one tile',
    )
    sampling_options.add_sampling_options(parser)
    add_device_option(parser)
    args = parser.parse_args(argv)
    if not (args.mask or args.box or args.outpaint):
        parser.error('give the part to generate: --mask, --box or --outpaint')
    if args.invert_mask and not args.mask:
        parser.error('--invert-mask needs --mask')
    sampling_options.check_guidance(parser, args)
    return args


def whole_numbers(names: str, least: int):
    """A ``type`` for argparse: whole numbers with these names, separated by commas."""

    def read(text: str) -> tuple[int, ...]:
        values = tuple(map(number(int, least), text.split(',')))
        if len(values) != names.count(',') + 1:
            raise ValueError(text)
        return values

    read.__name__ = names  # argparse prints it: "invalid X,Y,W,H value"
    return read


def settings_of(args, model, classes) -> dict:
    """What determines the pixels, besides the images and their masks."""
    kept = {name: getattr(args, name) for name in ('invert_mask', 'box', 'outpaint', 'reconstruction', 'overlap')}
    for name in ('box', 'outpaint'):  # JSON has no tuples
        kept[name] = kept[name] and list(kept[name])
    return dict(sampling_options.settings_of(args, model, classes), **kept)


def all_edits(pairs, channels: int, args) -> Iterator[Edit]:
    """Read images and masks, one after the other."""
    from addp_mm.generation.edits import Edit, Region

    region = Region(args.invert_mask, args.box, args.outpaint)
    return (Edit(pair, channels, region) for pair in pairs)


def open_edits(pairs, channels: int, args) -> list[Edit]:
    """Read images and masks; those with an empty mask are named and left out."""
    edits = []
    for pair, edit in zip(pairs, all_edits(pairs, channels, args), strict=True):
        if edit.mask.any():
            edits.append(edit)
        else:
            print(f'{pair.image}: the mask is empty, so that there is nothing to generate', file=sys.stderr)
    return edits


def write_samples(edits: list[Edit], inpainter, args, out: Path, record: EditTrajectories | None) -> int:
    """Generate the samples of images of one size that are missing or broken; return their number.

    If one is missing, all are computed, so that an interruption does not change the batches.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from addp_mm.generation import image_generator

    jobs = [(edit, sample) for edit in edits for sample in range(args.num_samples)]
    missing = [
        index
        for index, (edit, sample) in enumerate(jobs)
        if not edit.is_complete(out, sample) or (record and record.number(edit.name, sample) in record.missing)
    ]
    if not missing:
        return 0
    images = torch.from_numpy(np.stack([edit.image for edit, _ in jobs])).permute(0, 3, 1, 2) / 255
    mask = torch.from_numpy(np.stack([edit.mask for edit, _ in jobs]))
    tiles = sum(map(len, inpainter.plan(mask)))
    classes = args.classes and [args.classes[sample % len(args.classes)] for _, sample in jobs]
    words = f'{edits[0].name if len(edits) == 1 else f"{len(edits)} images"}: {tiles} tile(s)'
    with tqdm(total=tiles * args.steps, unit='step', desc=words, leave=False) as bar:
        samples = inpainter.run(
            images,
            mask,
            [image_generator(args.seed, sample) for _, sample in jobs],
            paste=not args.reconstruction,
            labels=classes,
            batch_size=args.batch_size,
            progress=bar.update,
        )
    if record:
        record.write(edits, samples.trajectories)
    for index in missing:
        edit, sample = jobs[index]
        edit.write(out, sample, samples.images[index])
    return len(missing)


def write_figure(edit: Edit, args, out: Path) -> None:
    """Write the image with its hidden part white, its mask and the first samples, side by side."""
    import numpy as np
    from PIL import Image

    from addp_mm.checkpoints.atomic_write import write_png
    from addp_mm.generation.figures import image_grid

    known = np.broadcast_to(edit.image, (*edit.mask.shape, 3)).copy()
    if args.outpaint:
        left, top, right, bottom = args.outpaint
        canvas = np.ones_like(edit.mask)
        canvas[top : len(canvas) - bottom, left : canvas.shape[1] - right] = False
        known[canvas] = 255
    white = np.repeat(edit.mask[..., None], 3, -1).astype(np.uint8) * 255
    samples = [Image.open(edit.path(out, sample)) for sample in range(min(args.num_samples, SHOWN_SAMPLES))]
    panels = [known, white, *(np.asarray(sample.convert('RGB')) for sample in samples)]
    figure = image_grid([panel(one) for one in panels], columns=len(panels))
    write_png(out / 'figures' / edit.name, Image.fromarray(figure))


def panel(image):
    """An image at the size of a panel of a figure, in a grey frame."""
    import numpy as np
    from PIL import Image

    from addp_mm.generation.figures import enlarge

    shown = Image.fromarray(enlarge(image, SMALLEST_PANEL))
    shown.thumbnail((LARGEST_PANEL, LARGEST_PANEL))
    return np.pad(np.asarray(shown), ((1, 1), (1, 1), (0, 0)), constant_values=128)


def edit_images(pairs, inpainter, channels: int, args, out: Path, record: EditTrajectories | None) -> tuple[int, int]:
    """Write the missing samples and figures; return the numbers of samples and of images."""
    from tqdm import tqdm

    together = max(1, args.batch_size // args.num_samples)
    written = count = 0
    with tqdm(total=len(pairs), unit='image', disable=len(pairs) == 1 or None) as bar:
        for begin in range(0, len(pairs), together):
            group = pairs[begin : begin + together]
            by_size: dict[tuple, list[Edit]] = {}
            for edit in open_edits(group, channels, args):
                by_size.setdefault(edit.mask.shape, []).append(edit)
            for edits in by_size.values():
                new = write_samples(edits, inpainter, args, out, record)
                for edit in edits:
                    if new or not (out / 'figures' / edit.name).is_file():
                        write_figure(edit, args, out)
                written, count = written + new, count + len(edits)
            bar.update(len(group))
    return written, count


def run(args) -> None:
    """Generate the samples and the figures."""
    from addp_mm.apis import load_model
    from addp_mm.checkpoints.atomic_write import remove_partials
    from addp_mm.config.config_file import ConfigError
    from addp_mm.config.output_folder import INPAINTING, claim_folder
    from addp_mm.config.paths import require_writable_folder
    from addp_mm.datasets.listed.image_mask_pairs import find_pairs
    from addp_mm.engine.device import choose_device
    from addp_mm.folder_lock import lock_folder
    from addp_mm.generation import AlternatingSampler, TiledInpainter
    from addp_mm.generation.trajectories.edit_trajectories import EditTrajectories

    device, out, schedule = choose_device(args.device), Path(args.out), sampling_options.schedule_of(args)
    pairs = find_pairs(args.image, args.mask, excluded=[out])
    model = load_model(args.config, args.checkpoint, device)
    channels = model.in_channels
    if channels not in (1, 3):
        raise ConfigError(
            f'{args.config} has images of {channels} channels, which a PNG file cannot hold: use addp_mm.apis.inpaint'
        )
    sampler = AlternatingSampler(model, model.latent_size, schedule, sampling_options.guidance_of(args))
    inpainter = TiledInpainter(sampler, model.tokenizer.stride, args.overlap)
    classes = sampling_options.classes_of(args, sampler.num_classes)
    settings = settings_of(args, model, classes)
    args.classes = classes  # their numbers
    require_writable_folder(out, f'--out {out}')
    with lock_folder(out):
        claim_folder(out / 'images', out / INPAINTING, settings)
        for folder in (out, *(path for path in out.rglob('*') if path.is_dir())):
            remove_partials(folder)
        record = None
        if args.trajectories:
            edits = all_edits(pairs, channels, args)
            record = EditTrajectories(out / 'trajectories', edits, inpainter, args.num_samples, settings)
        written, count = edit_images(pairs, inpainter, channels, args, out, record)
        if record:
            record.write_names()
    print(f'{written} new sample(s) of {count} image(s) in {out / "images"}')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with (
        exit_on_interrupt(f'finished samples are in {args.out}; the same command goes on'),
        exit_on_user_error(OSError),
    ):
        run(args)


if __name__ == '__main__':
    main()
