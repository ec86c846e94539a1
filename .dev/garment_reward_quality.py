# Copyright (c) addp_mm contributors. Apache-2.0.
"""How well a classifier of garments serves as a reward, on images that it has not seen.

    python .dev/garment_reward_quality.py CONFIG CHECKPOINT --data-root data/fashion_scenes

The images are those of one garment in the validation set, and their reconstructions by the shipped
tokenizer, which are as soft as generated images. With --generated, also images of ``addp generate
--classes all``, whose class is their number modulo ten. For each set, the table has the share of
images whose own class is the most likely one, the mean probability of the most likely class (equal
to that share if the probabilities are calibrated), and the log-probability of the own class and of
the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from addp_mm.alignment.rewards import ClassifierReward
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.cli_options import aligned
from addp_mm.config.config_file import load_config
from addp_mm.datasets.fashion.fashion_mnist import CLASSES
from addp_mm.errors import exit_on_user_error
from addp_mm.evaluation import open_images
from addp_mm.registry import MODELS

TOKENIZER = 'addp_mm::_base_/models/vq-tokenizer_nano-p8_released.py'
BATCH_SIZE = 100


def garments(data_root: Path) -> Iterator[tuple[Tensor, int]]:
    """Batches of validation images of one class, (B, 3, S, S) in [0, 1], and their class."""
    for label, name in enumerate(CLASSES):
        images = open_images(data_root / 'objects/val' / name)
        for batch in images.batches(0, len(images), BATCH_SIZE):
            yield torch.from_numpy(batch).permute(0, 3, 1, 2) / 255, label


def generated_garments(folder: Path) -> tuple[Tensor, Tensor]:
    """Images of ``addp generate --classes all``, (N, 3, S, S) in [0, 1], and their classes (N,)."""
    opened = open_images(folder)
    batches = list(opened.batches(0, len(opened), BATCH_SIZE))
    return torch.from_numpy(np.concatenate(batches)).permute(0, 3, 1, 2) / 255, torch.arange(len(opened)) % len(CLASSES)


def load_tokenizer() -> nn.Module:
    """The shipped tokenizer, in eval mode."""
    tokenizer = MODELS.build(load_config(TOKENIZER).tokenizer)
    init_weights(tokenizer)
    return tokenizer.requires_grad_(False).eval()


@torch.no_grad()
def class_rewards(reward: ClassifierReward, images: Tensor) -> Tensor:
    """Rewards (B, 10) of images (B, 3, S, S), for each class that they could be meant to show."""
    labels = range(len(CLASSES))
    return torch.stack([reward(images, torch.full((len(images),), label)) for label in labels], 1)


def row(name: str, log_probs: Tensor, labels: Tensor) -> list[str]:
    """The row of a set in the table, from its log-probabilities (N, 10) and classes (N,)."""
    own = torch.nn.functional.one_hot(labels, log_probs.shape[1]).bool()
    right = (log_probs.argmax(1) == labels).double().mean()
    sure = log_probs.amax(1).exp().mean()
    low, middle, high = log_probs[own].quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return [
        name,
        f'{len(labels):,}',
        f'{right:.1%}',
        f'{sure:.1%}',
        f'{log_probs[own].mean():.2f} ({low:.2f}, {middle:.2f}, {high:.2f})',
        f'{log_probs[~own].mean():.2f}',
    ]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="config of mmpretrain's ImageClassifier")
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/fashion_scenes'), help='FashionScenes [%(default)s]'
    )
    parser.add_argument('--generated', type=Path, metavar='FOLDER', help='images of addp generate --classes all')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    with exit_on_user_error(OSError):
        reward, tokenizer = ClassifierReward(args.config, args.checkpoint), load_tokenizer()
        real, rebuilt, labels = [], [], []
        for images, label in garments(args.data_root):
            reconstructions = tokenizer.decode(tokenizer.encode(images)[1]).clamp(0, 1)
            real.append(class_rewards(reward, images))
            rebuilt.append(class_rewards(reward, reconstructions))
            labels += [label] * len(images)
        classes = torch.tensor(labels)
        rows = [row('validation images', torch.cat(real), classes)]
        rows.append(row('their reconstructions', torch.cat(rebuilt), classes))
        if args.generated:
            images, classes = generated_garments(args.generated)
            rows.append(row('generated', class_rewards(reward, images), classes))
    head = ['', 'images', 'right', 'sure', 'own class: mean (10, 50, 90 %)', 'other classes']
    print(aligned([head, *rows], numbers=True))


if __name__ == '__main__':
    main()
