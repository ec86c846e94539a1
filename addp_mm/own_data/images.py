# Copyright (c) addp_mm contributors. Apache-2.0.
"""The images of the user: their list, and channels, sizes and statistics of some of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from addp_mm.datasets import DatasetError
from addp_mm.datasets.listed.broken_images import is_gone
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.listed.webdataset_images import is_shard_name
from addp_mm.errors import first_few

# So many images are inspected.
INSPECTED = 64
FEW_IMAGES = 1000
FEW_IMAGES_OF_LARGE = 20_000
MAX_CHANNELS = 16
KINDS = dict(LMDBImages='LMDB database', WebDatasetImages='WebDataset shards', ImageFiles='folder of image files')
_VAL_SHARE, _VAL_IMAGES = 50, 16


@dataclass(frozen=True)
class Found:
    """The images, as far as the inspected ones tell.

    Args:
        dataset: Config of the dataset without pipeline and split.
        count: Number of images.
        fingerprint: Fingerprint of the list of names.
        channels: Channels of the models.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel.
        shortest: Shortest side, in pixels.
        val_every: One image of so many is held out.
        plain: Whether all are grey or colour images of eight bits, and no arrays or pages. Defaults
            to True.
        broken: Names and reasons of those that could not be read. Defaults to none.
        most_stored: The most channels of an image whose alpha or other bands are left out; 0 if
            there is none. Defaults to 0.
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
        index_file: Where the list of images is stored, in the work dir.
        max_broken_share: Share of broken images that is tolerated.
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
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.') or entry.name == '__MACOSX':
                continue
            if entry.is_dir():
                if not (work_dir.exists() and os.path.samefile(entry.path, work_dir)):
                    return False
            elif entry.name.lower().endswith(EXTENSIONS):
                return False
            found = found or is_shard_name(entry.name)
    return found


def find_images(cfg: dict, channels: int | None, value_range: tuple[float, float] | None, changed: str) -> Found:
    """List the images and inspect some of them.

    Args:
        cfg: From :func:`dataset_cfg`.
        channels: Channels of the models; None to take those of the images.
        value_range: Values of black and white, for types without a range.
        changed: What to do if the images have changed since the list was made: 'error', 'keep' (the
            old list) or 'rescan'.

    Raises:
        DatasetError: There are too few images, their channels differ, or they need options.
    """
    from addp_mm.registry import DATASETS

    images = DATASETS.build(dict(cfg, changed=changed))
    if len(images) < 4:
        raise DatasetError(f'{images.source}: {len(images)} images; at least 4 are needed to train and hold some out')
    rows = sorted({len(images) * i // INSPECTED for i in range(INSPECTED)})
    inspected, broken = [], []
    for row in rows:
        name = images.name(row)
        try:
            info = images.get_data_info(row)
            name = info['img_path']
            inspected.append(_inspect(info, value_range))
        except (OSError, ValueError) as error:
            if not (changed == 'keep' and is_gone(error)):
                broken.append(f'{name} ({error})')
    if len(broken) > len(inspected):
        raise DatasetError(f'{len(broken)} of {len(rows)} images cannot be read: {first_few(broken, 3, "; ")}')
    if not inspected:
        raise DatasetError(
            f'{images.source}: {len(rows)} of the listed images were inspected, and none exists any more. List them '
            'again with --restart-from tokenizer'
        )
    _check_values(inspected)
    wanted = channels or _channels(inspected)
    mean, std = _statistics(inspected, wanted)
    stored = [image.stored for image in inspected if image.has_other_bands and image.stored != wanted]
    return Found(
        dataset=cfg,
        count=len(images),
        fingerprint=images.fingerprint,
        channels=wanted,
        mean=mean,
        std=std,
        shortest=min(image.side for image in inspected),
        val_every=max(4, min(_VAL_SHARE, len(images) // _VAL_IMAGES)),
        plain=all(image.ordinary and image.dtype == np.uint8 for image in inspected),
        broken=broken,
        most_stored=max(stored, default=0),
    )


@dataclass(frozen=True)
class _Inspected:
    """What is known of one image. Its pixels are not kept.

    Args:
        name: Its path.
        channels: Channels to train with.
        ordinary: Whether it is a usual grey or colour image.
        dtype: Type of its values.
        side: Shorter side, in pixels.
        stored: Channels in the file, alpha included.
        has_other_bands: Whether alpha or other bands are stored beside grey or colour.
        array: Whether it is an ``.npy`` file.
        bounds: Lowest and highest value, if the values of black and white are unknown. Else None.
        moments: Mean and mean square of each channel, as arrays of shape (2, C) of values in
            [0, 1]: of all stored channels, of grey or colour alone, and of the mean of these. Empty
            if there are ``bounds``.
    """

    name: str
    channels: int
    ordinary: bool
    dtype: np.dtype
    side: int
    stored: int
    has_other_bands: bool
    array: bool
    bounds: tuple[float, float] | None = None
    moments: tuple[np.ndarray, ...] = ()


def _inspect(info: dict, value_range: tuple[float, float] | None) -> _Inspected:
    from addp_mm.datasets.readers.load_image import image_content
    from addp_mm.datasets.readers.multi_channel import shown_channels
    from addp_mm.datasets.readers.read_channels import is_array, read_channels

    content = image_content(dict(info), None)
    image = read_channels(content)
    colour = shown_channels(content, image) if image.colour else image.values
    values = colour if image.values is None else image.values
    assert values is not None
    assert colour is not None
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
        raise ValueError('values that are not finite')
    bounds: tuple[float, float] | None = None
    moments: tuple[np.ndarray, ...] = ()
    if value_range is None and values.dtype.type not in (np.uint8, np.uint16, np.bool_):
        bounds = (float(values.min()), float(values.max()))
    else:
        shown = _scaled(colour, value_range)
        moments = _moments(_scaled(values, value_range)), _moments(shown), _moments(shown.mean(1, keepdims=True))
    channels = values.shape[2]
    return _Inspected(
        name=info['img_path'],
        channels=image.colour if image.ordinary else channels,
        ordinary=image.ordinary,
        dtype=values.dtype,
        side=min(values.shape[:2]),
        stored=channels,
        has_other_bands=bool(image.colour) and channels > image.colour,
        array=is_array(content),
        bounds=bounds,
        moments=moments,
    )


def _scaled(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Pixels (H, W, C) as (H x W, C), in [0, 1]."""
    low, high = value_range or (0, 1 if values.dtype == bool else np.iinfo(values.dtype).max)
    return ((values.reshape(-1, values.shape[2]).astype(np.float64) - low) / (high - low)).clip(0, 1)


def _moments(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels.mean(0), np.square(pixels).mean(0)])


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
        if image.bounds is not None:
            low, high = image.bounds
            raise DatasetError(
                f'{image.name}: {image.dtype} values have no known range (in this image they are from {low:g} to '
                f'{high:g}). Give the values of black and white as --value-range LOW HIGH'
            )


def _statistics(inspected: Sequence[_Inspected], channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel. Each image counts alike, whatever its size."""
    chosen = []
    for image in inspected:
        stored, colour, grey = image.moments
        fitting = [moments for moments in (stored, colour) if moments.shape[1] == channels]
        chosen.append(fitting[0] if fitting else grey.repeat(channels, 1))
    mean, square = np.mean(chosen, 0)
    std = np.sqrt((square - mean**2).clip(1e-4))
    return [round(float(value), 3) for value in mean], [round(float(value), 3) for value in std]


def warnings(found: Found, image_size: int, size: str) -> list[str]:
    """What is likely to disappoint the user.

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
            f'with white, other bands are left out. To train on all of them, give --channels {found.most_stored}'
        )
    return lines
