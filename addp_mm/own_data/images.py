# Copyright (c) addp_mm contributors. Apache-2.0.
"""Your images: their list, and channels, sizes and statistics of a sample."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from addp_mm.datasets import DatasetError
from addp_mm.datasets.listed.broken_images import is_gone
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.listed.webdataset_images import is_shard_name
from addp_mm.datasets.readers.load_image import image_content
from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import is_array, read_image
from addp_mm.errors import first_few
from addp_mm.registry import DATASETS

T = TypeVar('T')
# number of images to inspect
INSPECTED = 64
FEW_IMAGES = 1000
FEW_IMAGES_OF_LARGE = 20_000
MAX_CHANNELS = 16
KINDS = dict(LMDBImages='an LMDB database', WebDatasetImages='WebDataset shards', ImageFiles='a folder of image files')
_VAL_SHARE, _VAL_IMAGES = 50, 16


@dataclass(frozen=True)
class Found:
    """The images, with properties of the inspected ones.

    Args:
        dataset: Config of the dataset without pipeline and split.
        count: Number of images.
        fingerprint: Fingerprint of the list of names.
        channels: Channels of the models.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel.
        shortest: Shortest side, in pixels.
        val_every: Every ``val_every``-th image is held out.
        plain: Whether all are grey or colour images of eight bits, without arrays or pages.
            Defaults to True.
        broken: Names and reasons of the images that could not be read. Defaults to (): none.
        most_stored: Largest number of stored channels among images with alpha or other bands that
            are dropped; 0 without such images. Defaults to 0.
    """

    dataset: dict
    count: int
    fingerprint: str
    channels: int
    mean: list[float]
    std: list[float]
    shortest: int
    val_every: int
    plain: bool = True
    broken: list[str] = field(default_factory=list)
    most_stored: int = 0

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return self.count - self.val_count

    @property
    def val_count(self) -> int:
        """Number of held-out images."""
        return -(-self.count // self.val_every)


def dataset_cfg(source: str, index_file: Path, max_broken_share: float) -> dict:
    """Config of the dataset of a folder, an LMDB database or WebDataset shards.

    Args:
        source: Path, or a pattern of shards such as ``'shards/*.tar'``.
        index_file: File of the list of images, in the work dir.
        max_broken_share: Share of images that may be broken.
    """
    path = Path(source)
    options = dict(index_file=str(index_file), max_broken_share=max_broken_share)
    if path.suffix == '.lmdb' or (path / 'data.mdb').is_file():
        return dict(type='addp_mm.LMDBImages', path=str(path.absolute()), **options)
    pattern = not path.exists() and any(mark in source for mark in '*?[')
    if pattern or (_holds_shards(path, index_file.parent) if path.is_dir() else is_shard_name(path.name)):
        return dict(type='addp_mm.WebDatasetImages', shards=str(path.absolute()), **options)
    return dict(type='addp_mm.ImageFiles', root=str(path.absolute()), **options)


def _holds_shards(folder: Path, work_dir: Path) -> bool:
    """Whether a folder has tar files, but no images and no other folders."""
    with os.scandir(folder) as found:
        entries = [e for e in found if not e.name.startswith(('.', '__MACOSX')) and Path(e.path).absolute() != work_dir]
    if any(entry.is_dir() or entry.name.lower().endswith(EXTENSIONS) for entry in entries):
        return False
    return any(is_shard_name(entry.name) for entry in entries)


def find_images(cfg: dict, channels: int | None, value_range: tuple[float, float] | None, changed: str) -> Found:
    """List the images and inspect a sample of them.

    Args:
        cfg: Config from :func:`dataset_cfg`.
        channels: Channels of the models; None for those of the images.
        value_range: Values of black and white, for types without a range.
        changed: Reaction if the images have changed since they were listed: 'error', 'keep' (the
            old list) or 'rescan'.

    Raises:
        DatasetError: There are too few images, their channels differ, or an option is needed.
    """
    images = DATASETS.build(dict(cfg, changed=changed))
    if len(images) < 4:
        raise DatasetError(f'{images.source}: {len(images)} images; at least 4 are needed for training and validation')
    rows = sorted({len(images) * i // INSPECTED for i in range(INSPECTED)})
    broken: dict[str, str] = {}

    def not_broken(function: Callable[[str, bytes], T]) -> list[T]:
        results = []
        for row in rows:
            name = images.name(row)
            try:
                info = images.get_data_info(row)
                name = info['img_path']
                results.append(function(name, image_content(dict(info), None)))
            except (OSError, ValueError) as error:
                if not (changed == 'keep' and is_gone(error)):
                    broken[name] = str(error)
        if len(broken) > len(results):
            reasons = first_few((f'{name} ({reason})' for name, reason in broken.items()), 3, '; ')
            raise DatasetError(f'{len(broken)} of {len(rows)} images cannot be read: {reasons}')
        if not results:
            raise DatasetError(
                f'{images.source}: {len(rows)} of the listed images were inspected, but none of them exists. List '
                'them again with --restart-from tokenizer'
            )
        return results

    inspected = not_broken(_inspect)
    if value_range is None:
        _check_values(inspected)
    wanted = channels or _channels(inspected)
    # The statistics are those of the pixels that the models get.
    load = LoadMultiChannelImage(wanted, value_range)
    mean, square = np.mean(not_broken(lambda _, content: _moments(load.decode(content))), 0)
    std = np.sqrt((square - mean**2).clip(1e-4))
    stored = [image.stored for image in inspected if image.has_other_bands and image.stored != wanted]
    return Found(
        dataset=cfg,
        count=len(images),
        fingerprint=images.fingerprint,
        channels=wanted,
        mean=[round(float(value), 3) for value in mean],
        std=[round(float(value), 3) for value in std],
        shortest=min(image.side for image in inspected),
        val_every=max(4, min(_VAL_SHARE, len(images) // _VAL_IMAGES)),
        plain=all(image.ordinary and image.dtype == np.uint8 for image in inspected),
        broken=[f'{name} ({reason})' for name, reason in broken.items()],
        most_stored=max(stored, default=0),
    )


@dataclass(frozen=True)
class _Inspected:
    """Properties of one image. Its pixels are not kept.

    Args:
        name: Its path.
        channels: Channels to train with.
        ordinary: Whether it is a usual grey or colour image.
        dtype: Type of its values.
        side: Shorter side, in pixels.
        stored: Channels in the file, including alpha.
        has_other_bands: Whether alpha or other bands are stored in addition to grey or colour.
        array: Whether it is an ``.npy`` file.
        bounds: Lowest and highest value.
    """

    name: str
    channels: int
    ordinary: bool
    dtype: np.dtype
    side: int
    stored: int
    has_other_bands: bool
    array: bool
    bounds: tuple[float, float]


def _inspect(name: str, content: bytes) -> _Inspected:
    image = read_image(content)
    values, channels = image.values, image.num_channels
    finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values
    if not finite.size:
        raise ValueError('no finite values')
    return _Inspected(
        name=name,
        channels=image.colour if image.ordinary else channels,
        ordinary=image.ordinary,
        dtype=values.dtype,
        side=min(values.shape[:2]),
        stored=channels,
        has_other_bands=bool(image.colour) and channels > image.colour,
        array=is_array(content),
        bounds=(float(finite.min()), float(finite.max())),
    )


def _moments(pixels: np.ndarray) -> np.ndarray:
    """Mean and mean square, (2, C), of each channel of (H, W, C) pixels from 0 to 255."""
    unit = pixels.astype(np.float64) / 255
    return np.stack([unit.mean((0, 1)), np.square(unit).mean((0, 1))])


def _channels(inspected: Sequence[_Inspected]) -> int:
    kinds = Counter(image.channels for image in inspected)
    if set(kinds) == {1, 3} and all(image.ordinary for image in inspected):
        return 3
    if len(kinds) > 1:
        examples = {image.channels: image.name for image in reversed(inspected)}
        found = '; '.join(f'{count} ({kinds[count]} images, such as {examples[count]})' for count in sorted(kinds))
        raise DatasetError(
            f'the images have different numbers of channels: {found}. Give --channels, and remove the other images'
        )
    (channels,) = kinds
    if channels > MAX_CHANNELS:
        order = '. Arrays must be (H, W, C)' if inspected[0].array else ''
        raise DatasetError(f'{inspected[0].name} has {channels} channels; 1 to {MAX_CHANNELS} are supported{order}')
    return channels


def _check_values(inspected: Sequence[_Inspected]) -> None:
    for image in inspected:
        if image.dtype.type not in (np.uint8, np.uint16, np.bool_):
            raise DatasetError(
                f'{image.name}: {image.dtype} values have no known range (in this image they are from '
                f'{image.bounds[0]:g} to {image.bounds[1]:g}). Give the values of black and white as '
                '--value-range LOW HIGH'
            )


def warnings(found: Found, image_size: int, size: str) -> list[str]:
    """Warnings about images that are likely to give bad results.

    Args:
        found: The images.
        image_size: Side of the training images, in pixels.
        size: Size of the models.
    """
    lines = []
    if found.count < FEW_IMAGES:
        lines.append(
            f'{found.count:,} images are few: the predictor and ADDP will overfit. With fewer than {FEW_IMAGES:,} '
            'images, start from weights of other images, or use --size nano and watch the held-out images'
        )
    if found.count < FEW_IMAGES_OF_LARGE and size in ('base', 'large'):
        lines.append(
            f'{found.count:,} images are few for --size {size}: --size small trains faster and probably generalises '
            'better'
        )
    if found.shortest < image_size:
        lines.append(f'some images have a side of {found.shortest} px and are enlarged to {image_size} px')
    if found.most_stored:
        lines.append(
            f'some images have {found.most_stored} channels, and the models have {found.channels}: alpha is blended '
            f'with white, and other bands are dropped. To train on all channels, give --channels {found.most_stored}'
        )
    return lines
