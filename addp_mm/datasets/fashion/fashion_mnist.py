# Copyright (c) addp_mm contributors. Apache-2.0.
"""Garments of Fashion-MNIST (Xiao et al., 2017, MIT licence), the source of FashionScenes.

A class-balanced subset ships with the package. The full set is read from its IDX files.
"""

import gzip
import io
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# In alphabetical order, as readers of ImageNet-style folders number their classes. A class
# therefore has the same number in classification, detection and segmentation.
CLASSES = ('ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser')
_IDX_ORDER = ('t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot')
# Classes whose photographs show the background through an opening, such as a handle.
_OPEN_CLASSES = tuple(CLASSES.index(name) for name in ('bag', 'sandal'))

GARMENT_SIZE = 28
SUBSET_FILE = Path(__file__).resolve().parents[2] / 'assets' / 'fashion_mnist_subset.npz'
_IDX_PREFIX = {'train': 'train', 'val': 't10k'}
_FOREGROUND_GREY = 16
_MIN_FOREGROUND = 60
_MOST_BYTES = 1 << 28  # five times the training set, which is the largest file


@dataclass(frozen=True)
class Garments:
    """Photographs of one split.

    Args:
        images: Grey values, uint8 (N, 28, 28), on a black background.
        labels: Indices into :data:`CLASSES`, int64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels."""
        return sha256(self.images.tobytes() + self.labels.astype('<i8').tobytes()).hexdigest()


def garment_alpha(image: np.ndarray, label: int) -> np.ndarray:
    """Separate a garment from its black background.

    Args:
        image: Grey values, uint8 (28, 28).
        label: Index into :data:`CLASSES`. Openings of bags and sandals are kept. In other garments
            they are dark prints and are filled.

    Returns:
        bool (28, 28), True on the garment.
    """
    mask = (image > _FOREGROUND_GREY).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] < 8:
            mask[parts == part] = 0
    # A frame joins the outer background into one region. Every other region is an opening.
    ground = np.pad(1 - mask, 1, constant_values=1)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(ground, connectivity=4)
    outside = parts[0, 0]
    largest = 8 if label in _OPEN_CLASSES else ground.size
    for part in range(1, count):
        if part != outside and stats[part, cv2.CC_STAT_AREA] <= largest:
            mask[parts[1:-1, 1:-1] == part] = 1
    return mask.astype(bool)


def load_garments(split: str, source: str | None = None) -> Garments:
    """Load the garments of one split.

    Args:
        split: 'train' or 'val'; 'val' is Fashion-MNIST's test split. No garment is in both.
        source: Folder of Fashion-MNIST's IDX files, gzipped or not, or a folder with them in
            ``FashionMNIST/raw`` (torchvision's layout) or ``raw``. Defaults to None: the subset
            that ships with the package.

    Raises:
        ValueError: The split is unknown, or a file is damaged.
        FileNotFoundError: The folder does not have the files.
    """
    if split not in _IDX_PREFIX:
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    if source is None:
        return _read_subset(split)
    folder = _find_idx_folder(Path(source), split)
    images = _read_idx(folder, f'{_IDX_PREFIX[split]}-images-idx3-ubyte', 3)
    labels = _read_idx(folder, f'{_IDX_PREFIX[split]}-labels-idx1-ubyte', 1)
    if images.shape[1:] != (GARMENT_SIZE, GARMENT_SIZE) or len(images) != len(labels) or labels.max() > 9:
        raise ValueError(
            f'{folder} does not have the files of Fashion-MNIST (images {images.shape}, '
            f'labels {labels.shape}, largest label {labels.max()})'
        )
    labels = np.array([CLASSES.index(name) for name in _IDX_ORDER])[labels]
    return _keep_visible(Garments(images, labels))


def _read_subset(split: str) -> Garments:
    with np.load(SUBSET_FILE, allow_pickle=False) as arrays:
        mosaic = np.asarray(Image.open(io.BytesIO(arrays[f'{split}_png'].tobytes())))
    per_class = mosaic.shape[1] // GARMENT_SIZE
    images = mosaic.reshape(len(CLASSES), GARMENT_SIZE, per_class, GARMENT_SIZE).transpose(0, 2, 1, 3)
    images = np.ascontiguousarray(images.reshape(-1, GARMENT_SIZE, GARMENT_SIZE))
    return Garments(images, np.repeat(np.arange(len(CLASSES)), per_class))


def _keep_visible(garments: Garments) -> Garments:
    """Leave out the few photographs that are almost black."""
    visible = (garments.images > _FOREGROUND_GREY).sum((1, 2)) >= _MIN_FOREGROUND
    return Garments(garments.images[visible], garments.labels[visible])


def _find_idx_folder(source: Path, split: str) -> Path:
    name = f'{_IDX_PREFIX[split]}-images-idx3-ubyte'
    for folder in (source, source / 'FashionMNIST' / 'raw', source / 'raw'):
        if any((folder / file).is_file() for file in (name, f'{name}.gz')):
            return folder
    raise FileNotFoundError(
        f'{source}: neither {name} nor {name}.gz is in this folder or in FashionMNIST/raw below it. Give the '
        "folder of Fashion-MNIST's IDX files (Debian: /usr/share/datasets/fashion-mnist), or no folder for the "
        'embedded subset.'
    )


def _read_idx(folder: Path, name: str, ndim: int) -> np.ndarray:
    """Read an IDX file of bytes (http://yann.lecun.com/exdb/mnist): magic, sizes, values."""
    path = next((path for path in (folder / name, folder / f'{name}.gz') if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f'{folder}: neither {name} nor {name}.gz is in this folder')
    try:
        with gzip.open(path) if path.suffix == '.gz' else open(path, 'rb') as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f'more than {_MOST_BYTES >> 20} MiB')
        magic, *shape = struct.unpack_from(f'>{1 + ndim}I', content)
        if magic != 0x0800 + ndim:
            raise ValueError(f'magic number {magic:#x}')
        return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise ValueError(
            f'{path}: not an IDX file of bytes with {ndim} dimensions, or truncated ({error}). Download it again.'
        ) from error
