# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write the token ids of a dataset once, with several views of each image, for addp_mm.TokenIds.

    python tools/dataset_converters/tokenize_images.py vq.pth data/photos data/ids --img-size 256

The same command resumes after an interruption. A view depends only on --seed, its image and its
number, not on the number of processes.
"""

import argparse
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import add_device_option, add_renamed, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from addp_mm.datasets.tokens.class_labels import ClassLabels
    from addp_mm.datasets.tokens.token_store import TokenWriter
    from addp_mm.datasets.views.views import Views
    from addp_mm.datasets.views.views_dataset import ViewsDataset


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'tokenizer',
        help='config with a tokenizer, or of a model with one; or weights, .safetensors or '
        '.pth, with their config next to them as .json',
    )
    parser.add_argument(
        'images', help='folder, with all folders below it; or config whose train_dataloader.dataset gives img_path'
    )
    parser.add_argument('dst', type=Path, help='folder for the ids')
    parser.add_argument(
        '--checkpoint', metavar='PATH', help="weights for the config's tokenizer [those of its init_cfg]"
    )
    parser.add_argument(
        '--img-size', type=number(int, 1), required=True, metavar='N', help='side of the views in pixels'
    )
    parser.add_argument(
        '--views', type=number(int, 1), metavar='N', help='views of an image [crop: 8, flip: 2, none: 1]'
    )
    parser.add_argument(
        '--augment',
        choices=['crop', 'flip', 'none'],
        default='crop',
        help='crop: random resized crop and flip; flip: the centre square and its mirror image; none: the centre '
        'square [crop]',
    )
    parser.add_argument(
        '--crop-scale',
        type=number(float, 0, 1),
        nargs=2,
        default=[0.2, 1.0],
        metavar=('MIN', 'MAX'),
        help="share of the image's area in a crop [0.2 1.0]",
    )
    parser.add_argument('--interpolation', choices=['bicubic', 'bilinear'], default='bicubic')
    parser.add_argument('--seed', type=number(int, 0), default=0, metavar='N', help='seed of the views [0]')
    parser.add_argument(
        '--labels',
        metavar='SOURCE',
        help="also store the classes of the images, for a class-conditional predictor. 'folders': the folders "
        "directly below IMAGES; 'dataset': gt_label of the dataset of the config IMAGES; or a text file with lines "
        "'image label'. The same command with --labels adds them to finished ids [no labels]",
    )
    parser.add_argument('--batch-size', type=number(int, 1), default=64, metavar='N', help='views in a batch [64]')
    parser.add_argument(
        '--num-workers',
        type=number(int, 0),
        default=min(4, os.cpu_count() or 1),
        metavar='N',
        help='processes that load images; 0: the main one [4, or the number of cores]',
    )
    add_device_option(parser)
    parser.add_argument(
        '--shard',
        default='0/1',
        metavar='I/N',
        help='tokenize the I-th (from 0) of N equal parts of the list, into DST/shard-I-of-N; other processes do the '
        'other parts [0/1]',
    )
    parser.add_argument(
        '--max-broken-share',
        type=number(float, 0, 1),
        default=0.01,
        metavar='X',
        help='stop if more than this share of the images, plus ten, cannot be read [0.01]',
    )
    parser.add_argument(
        '--save-seconds',
        type=number(float, 0),
        default=10.0,
        metavar='N',
        help='save the finished ids every N seconds [10]',
    )
    add_renamed(parser, old='--image-size', new='--img-size')
    args = parser.parse_args(argv)
    shard = re.fullmatch(r'(\d+)/(\d+)', args.shard)
    if not shard or int(shard[1]) >= int(shard[2]):
        parser.error(f'--shard {args.shard}: expected I/N with I from 0 to N - 1')
    args.shard = int(shard[1]), int(shard[2])
    args.views = args.views or dict(crop=8, flip=2, none=1)[args.augment]
    return args


def tokenizer_config(source: str, checkpoint: str | None = None) -> tuple[dict, dict]:
    """Find the tokenizer of a config.

    Args:
        source: TOKENIZER of the command line.
        checkpoint: --checkpoint of the command line. Defaults to None.

    Returns:
        The config of the tokenizer with an ``init_cfg`` that loads its weights, and the whole
        config.

    Raises:
        ConfigError: The file does not exist or has no tokenizer.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    from addp_mm.checkpoints.state_dict import find_state_dict
    from addp_mm.config.config_file import ConfigError, load_config
    from addp_mm.config.paths import require_file
    from addp_mm.conversion.write_converted import config_beside

    if source.endswith(('.safetensors', '.pth', '.pt')):
        require_file(source, 'tokenizer', ('.safetensors', '.pth', '.pt'))
        if not Path(config_beside(source)).is_file():
            raise ConfigError(
                f'{source} has no config {config_beside(source)}: give the config of its '
                f'training, and --checkpoint {source}'
            )
        source, checkpoint = config_beside(source), checkpoint or source
    cfg = load_config(source).to_dict()
    tokenizer = (cfg.get('model') or {}).get('tokenizer') or cfg.get('tokenizer')
    if not tokenizer:
        raise ConfigError(f'{source} has neither model.tokenizer nor tokenizer')
    if checkpoint:
        names = find_state_dict(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'), checkpoint)
        prefix = 'tokenizer.' if any(name.startswith('tokenizer.') for name in names) else None
        tokenizer['init_cfg'] = dict(type='addp_mm.Pretrained', checkpoint=checkpoint, prefix=prefix, strict=True)
    return tokenizer, cfg


def image_loader(channels: int, cfg: Mapping) -> 'Callable[[dict], dict]':
    """The transform that reads images: that of the training pipeline if addp_mm has its class.

    Args:
        channels: Number of channels that the tokenizer takes.
        cfg: The whole config of the tokenizer.
    """
    from addp_mm.registry import TRANSFORMS

    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    own = [step for step in dataset.get('pipeline') or [] if str(step.get('type')).startswith('addp_mm.Load')]
    default = (
        dict(type='addp_mm.LoadImage')
        if channels == 3
        else dict(type='addp_mm.LoadMultiChannelImage', channels=channels)
    )
    return TRANSFORMS.build(own[0] if own else default)


def check_share(writer: 'TokenWriter', rows: int, share: float) -> None:
    """Check that not too many of ``rows`` images are broken. Missing images are not counted.

    Raises:
        TokenStoreError: More than ``share`` of them, plus ten, are broken. The message lists them.
    """
    from addp_mm.datasets.listed.broken_images import BROKEN_ALLOWANCE, num_allowed
    from addp_mm.datasets.tokens.token_store import ABOUT, TokenStoreError
    from addp_mm.datasets.views.views_dataset import GONE
    from addp_mm.errors import first_few

    found = [f'{image["name"]} ({image["reason"]})' for image in writer.broken if image['reason'] != GONE]
    if len(found) > num_allowed(share, rows):
        raise TokenStoreError(
            f'{len(found)} of the first {writer.done:,} images cannot be read, more than --max-broken-share '
            f'{share} of {rows:,} and {BROKEN_ALLOWANCE} more: {first_few(found, 10, "; ")}. All are listed in '
            f'{writer.folder / ABOUT}. Replace or remove them, delete {writer.folder} and start again; or skip '
            'them with a larger --max-broken-share'
        )


def tokenize(
    tokenizer: 'nn.Module', writer: 'TokenWriter', data: 'ViewsDataset', shard_start: int, args: argparse.Namespace
) -> None:
    """Write the ids of the remaining images. Finished ids are also saved after an error."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from addp_mm.datasets.views.views_dataset import collate_views
    from addp_mm.processes import worker_context

    torch.backends.cudnn.deterministic = True
    loader = DataLoader(
        data,
        max(1, args.batch_size // args.views),
        num_workers=args.num_workers,
        collate_fn=collate_views,
        multiprocessing_context=worker_context() if args.num_workers else None,
    )
    device, rows = next(tokenizer.parameters()).device, data.stop - shard_start
    saved = time.monotonic()
    try:
        with torch.inference_mode(), tqdm(total=rows, initial=writer.done, unit='img', desc=str(writer.folder)) as bar:
            for views, problems in loader:
                ids = tokenizer.encode(views.flatten(0, 1).to(device))[0].unflatten(0, views.shape[:2]).cpu()
                ids[[problem is not None for problem in problems]] = 0
                first = shard_start + writer.done
                writer.write(ids.numpy(), {first + k: problem for k, problem in enumerate(problems) if problem})
                if any(problems):
                    check_share(writer, rows, args.max_broken_share)
                bar.update(len(views))
                if time.monotonic() - saved >= args.save_seconds:
                    writer.save()
                    saved = time.monotonic()
    finally:
        writer.save()


def settings_of(
    args: argparse.Namespace,
    tokenizer: 'nn.Module',
    config: dict,
    images: Sequence,
    views: 'Views',
    labels: 'ClassLabels | None',
) -> dict:
    """The settings for ``tokens.json``."""
    from importlib.metadata import version

    from addp_mm.datasets.listed.open_images import list_fingerprint
    from addp_mm.datasets.tokens.fingerprints import tokenizer_fingerprint

    return dict(
        tokenizer=dict(
            type=type(tokenizer).__name__,
            codebook_size=tokenizer.codebook_size,
            fingerprint=tokenizer_fingerprint(tokenizer, config),
        ),
        images=dict(count=len(images), fingerprint=list_fingerprint(images)),
        views=views.settings(),
        **({} if labels is None else dict(labels=labels.settings())),
        shard=dict(index=args.shard[0], of=args.shard[1]),
        notes=dict(
            tokenizer=config,
            images=os.path.abspath(args.images),
            batch_size=args.batch_size,
            versions={name: version(name) for name in ('torch', 'pillow', 'numpy')},
        ),
    )


def run(args: argparse.Namespace) -> str:
    """Write the ids, or resume; returns a summary."""
    import torch

    from addp_mm.datasets.listed.open_images import open_images
    from addp_mm.datasets.tokens.class_labels import read_class_labels
    from addp_mm.datasets.tokens.fingerprints import build_loaded
    from addp_mm.datasets.tokens.token_store import LABELS, TokenStoreError, TokenWriter
    from addp_mm.datasets.views.views import Views
    from addp_mm.datasets.views.views_dataset import ViewsDataset
    from addp_mm.engine.device import choose_device

    device = choose_device(args.device)
    views = Views(args.img_size, args.views, args.augment, tuple(args.crop_scale), args.interpolation, args.seed)
    config, cfg = tokenizer_config(args.tokenizer, args.checkpoint)
    images = open_images(args.images)
    labels = None if args.labels is None else read_class_labels(images, args.labels)
    (index, number), folder = args.shard, args.dst
    if number > 1:
        folder = folder / f'shard-{index:04d}-of-{number:04d}'
    start, stop = len(images) * index // number, len(images) * (index + 1) // number
    if start == stop:
        raise TokenStoreError(f'--shard {index}/{number}: {len(images)} images are too few for {number} parts')
    tokenizer = build_loaded(config)
    channels = config.get('in_channels', 3)
    with torch.inference_mode():
        length = tokenizer.encode(torch.zeros(1, channels, args.img_size, args.img_size))[0].shape[1]
    dtype = 'uint16' if tokenizer.codebook_size <= 2**16 else 'int32'
    had_labels = (folder / LABELS).is_file()
    writer = TokenWriter(
        folder,
        settings_of(args, tokenizer, config, images, views, labels),
        (stop - start, args.views, length),
        dtype,
        None if labels is None else labels.labels[start:stop],
    )
    if writer.complete:
        done = 'nothing done' if had_labels or labels is None else 'their labels are added'
        return f'{folder}: the same ids exist already, {done}'
    data = ViewsDataset(images, views, channels, image_loader(channels, cfg), start + writer.done, stop)
    tokenize(tokenizer.to(device), writer, data, start, args)
    return (
        f'{folder}: ids of {stop - start:,} images, {args.views} views of {length} tokens each; '
        f'{len(writer.broken)} images could not be read and are skipped'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the ids."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with (
        exit_on_interrupt(f'finished ids are in {args.dst}; the same command resumes'),
        exit_on_user_error(ValueError, OSError),
    ):
        print(run(args))


if __name__ == '__main__':
    main()
