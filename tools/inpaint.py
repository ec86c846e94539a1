# Copyright (c) addp_mm contributors. Apache-2.0.
"""Generate a part of an image again with a pre-trained ADDP: inpainting, outpainting, editing.

IMAGE is a file of any size, or a folder. Give the part by --mask, --box or --outpaint. Pixels
outside it stay as they are. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from addp_mm import sampling_options
from addp_mm.cli_options import ToolParser, number

INPUTS_KEY = 'addp_mm inputs'  # in the PNG: of which image and mask it is a sample
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
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... [a GPU if there is one]')
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


class Edit:
    """One image to edit, with its mask.

    Attributes:
        name: Path below the folders of the results.
        inputs: Fingerprint of the image file and the mask file.
        image: uint8 (H, W, C), with the new canvas.
        mask: bool (H, W), True where to generate.
    """

    def __init__(self, pair, channels: int, args) -> None:
        from addp_mm.datasets.readers.read_mask import read_mask
        from addp_mm.report.png_name import png_name

        self.name = png_name(pair.name)
        content = pair.image.read_bytes()
        image = read(pair.image, lambda: decode(content, channels))
        mask, digest = None, hashlib.sha256(content)
        if pair.mask:
            mask_content = pair.mask.read_bytes()
            mask = read(pair.mask, lambda: read_mask(mask_content, args.invert_mask))
            digest.update(mask_content)
        self.inputs = digest.hexdigest()
        self.image, self.mask = with_edits(pair, image, mask, args.box, args.outpaint)

    def path(self, out: Path, sample: int) -> Path:
        """The file of a sample."""
        return out / sample_name(self.name, sample)

    def is_complete(self, out: Path, sample: int) -> bool:
        """Whether the file of a sample is complete, and was made of this image and mask."""
        from PIL import Image

        try:
            with Image.open(self.path(out, sample), formats=['PNG']) as image:
                found = image.info.get(INPUTS_KEY)
                image.verify()
        except (OSError, SyntaxError):  # Pillow raises SyntaxError for a broken PNG
            return False
        return found == self.inputs


class TrajectoryRecord:
    """Trajectories of all samples, one file for each image.

    The samples of image i of N with a mask have the numbers from i · ``--num-samples`` on.

    Args:
        pairs: All images with their masks.
        inpainter: The inpainter.
        channels: Channels of the model.
        args: The parsed options.
        settings: What determines the pixels, besides the images and their masks.

    Raises:
        ConfigError: An image has several tiles, which make no trajectory.
        TrajectoryError: The folder has trajectories of other images or settings.
    """

    def __init__(self, pairs, inpainter, channels: int, args, settings: dict) -> None:
        from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles, check_settings

        self.files = TrajectoryFiles(Path(args.out) / 'trajectories')
        self.index_of: dict[str, int] = {}
        digest = hashlib.sha256()
        for pair in pairs:
            edit = Edit(pair, channels, args)
            if edit.mask.any():
                require_one_tile(pair, edit, inpainter)
                digest.update(f'{edit.name}\0{edit.inputs}\0'.encode())
                self.index_of[edit.name] = len(self.index_of)
        self.num_samples = args.num_samples
        self.settings = dict(settings, amp=False, num_samples=args.num_samples, images=digest.hexdigest())
        total = len(self.index_of) * args.num_samples
        self.missing = frozenset(self.files.missing(total))
        if len(self.missing) < total:
            check_settings(self.files.settings(), self.settings, self.files.folder)

    def number(self, name: str, sample: int) -> int:
        """Number of a sample of an image."""
        return self.index_of[name] * self.num_samples + sample

    def write(self, edits: list[Edit], trajectories) -> None:
        """Write the trajectories of all samples of images, those of one image after the other."""
        for index, edit in enumerate(edits):
            own = trajectories[index * self.num_samples : (index + 1) * self.num_samples]
            self.files.write(self.number(edit.name, 0), own, self.settings)

    def write_names(self) -> None:
        """Write trajectories/images.json: the image file of each number."""
        from addp_mm.checkpoints.atomic_write import write_json

        names = {
            f'{self.number(name, sample):06d}': sample_name(name, sample)
            for name in self.index_of
            for sample in range(self.num_samples)
        }
        write_json(self.files.folder / 'images.json', names)


def require_one_tile(pair, edit: Edit, inpainter) -> None:
    """Refuse an image of several tiles: a later tile depends on pixels of the earlier ones."""
    import torch

    from addp_mm.errors import ConfigError

    tiles = len(inpainter.plan(torch.from_numpy(edit.mask)[None])[0])
    if tiles > 1:
        raise ConfigError(
            f'--trajectories: {pair.image} needs {tiles} tiles for its mask, and a trajectory is that of one tile. '
            'Leave the image out, or give a smaller mask or image'
        )


def sample_name(name: str, sample: int) -> str:
    """Path of a sample below --out."""
    return f'images/{sample:03d}/{name}'


def read(path: Path, function):
    """Read an image; the error names the file."""
    from addp_mm.datasets.errors import DatasetError

    try:
        return function()
    except ValueError as error:
        raise DatasetError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error


def decode(content: bytes, channels: int):
    """Pixels of an image file, uint8 (H, W, C), for a model of so many channels."""
    from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
    from addp_mm.datasets.readers.read_image import read_rgb

    if channels == 3:
        return read_rgb(content)
    return LoadMultiChannelImage(channels, to_float32=False).decode(content)


def with_edits(pair, image, mask, box, outpaint):
    """The image with its new canvas, and the mask of all that is to be generated."""
    import numpy as np

    from addp_mm.datasets.errors import DatasetError
    from addp_mm.generation.canvas import add_canvas

    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool) if mask is None else mask
    if mask.shape != (height, width):
        raise DatasetError(
            f'a mask must have the size of its image: {pair.image} has {width}x{height} pixels, and {pair.mask} '
            f'{mask.shape[1]}x{mask.shape[0]}'
        )
    if box:
        left, top, box_width, box_height = box
        if left + box_width > width or top + box_height > height:
            raise DatasetError(
                f'--box {",".join(map(str, box))} is not inside {pair.image}, of {width}x{height} pixels'
            )
        mask[top : top + box_height, left : left + box_width] = True
    if outpaint:
        image, mask = add_canvas(image, mask, *outpaint)
    return image, mask


def open_edits(pairs, channels: int, args) -> list[Edit]:
    """Read images and masks; those with an empty mask are named and left out."""
    edits = []
    for pair in pairs:
        edit = Edit(pair, channels, args)
        if edit.mask.any():
            edits.append(edit)
        else:
            print(f'{pair.image}: the mask is empty, so that there is nothing to generate', file=sys.stderr)
    return edits


def write_samples(edits: list[Edit], inpainter, args, out: Path, record: TrajectoryRecord | None) -> int:
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
        write_sample(edit.path(out, sample), samples.images[index], edit.inputs)
    return len(missing)


def write_sample(path: Path, image, inputs: str) -> None:
    """Write an image (C, H, W) in [0, 1] atomically, with the fingerprint of its inputs."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from addp_mm.checkpoints.atomic_write import atomic_path

    pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    info = PngInfo()
    info.add_text(INPUTS_KEY, inputs)
    with atomic_path(path) as partial:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(partial, 'png', pnginfo=info)


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


def edit_images(pairs, inpainter, channels: int, args, out: Path, record: TrajectoryRecord | None) -> tuple[int, int]:
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
        record = TrajectoryRecord(pairs, inpainter, channels, args, settings) if args.trajectories else None
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
