# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write the class-balanced subset of Fashion-MNIST that ships with the package.

python .dev/fashion_mnist_subset.py /usr/share/datasets/fashion-mnist
"""

import argparse
import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, GARMENT_SIZE, SUBSET_FILE, Garments, load_garments

MAX_BYTES = 3_000_000


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help="folder of Fashion-MNIST's IDX files")
    parser.add_argument('--out', type=Path, default=SUBSET_FILE, help='file to write [the shipped one]')
    parser.add_argument('--train-per-class', type=int, default=600, help='training garments of each class [600]')
    parser.add_argument('--val-per-class', type=int, default=100, help='test garments of each class [100]')
    return parser.parse_args(argv)


def balanced_subset(garments: Garments, per_class: int) -> Garments:
    """Take the first ``per_class`` garments of every class, in the order of the classes.

    Raises:
        ValueError: A class has fewer garments.
    """
    chosen = [np.flatnonzero(garments.labels == label)[:per_class] for label in range(len(CLASSES))]
    if min(map(len, chosen)) < per_class:
        raise ValueError(f'a class has only {min(map(len, chosen))} garments, {per_class} are requested')
    index = np.concatenate(chosen)
    return Garments(garments.images[index], garments.labels[index])


def encode_subset(garments: Garments) -> np.ndarray:
    """Pack garments, balanced and sorted by class, into one grey PNG with a row for each class.

    PNG is smaller than deflate alone.

    Returns:
        The bytes of the PNG, uint8.
    """
    per_class = len(garments) // len(CLASSES)
    rows = garments.images.reshape(len(CLASSES), per_class, GARMENT_SIZE, GARMENT_SIZE).transpose(0, 2, 1, 3)
    png = io.BytesIO()
    Image.fromarray(rows.reshape(-1, per_class * GARMENT_SIZE)).save(png, 'PNG', optimize=True)
    return np.frombuffer(png.getvalue(), np.uint8)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the subset and print its size and fingerprints."""
    args = parse_args(argv)
    counts = dict(train=args.train_per_class, val=args.val_per_class)
    subset = {split: balanced_subset(load_garments(split, args.source), count) for split, count in counts.items()}
    arrays = {f'{split}_png': encode_subset(garments) for split, garments in subset.items()}
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
        raise SystemExit(f'the subset would exceed {MAX_BYTES} bytes; give fewer garments of each class')
    np.savez(args.out, **arrays)
    print(f'{args.out}: {args.out.stat().st_size} bytes, SHA-256 {sha256(args.out.read_bytes()).hexdigest()}')
    for split, garments in subset.items():
        print(f'  {split}: {len(garments)} garments, pixels and labels SHA-256 {garments.fingerprint()}')


if __name__ == '__main__':
    main()
