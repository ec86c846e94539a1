# Copyright (c) addp_mm contributors. Apache-2.0.
"""What images there are: their list, their channels and their sizes, found before time is lost on them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from addp_mm.datasets import DatasetError
from addp_mm.datasets.listed.broken_images import is_gone
from addp_mm.datasets.listed.image_files import EXTENSIONS
from addp_mm.datasets.listed.webdataset_images import is_shard_name
from addp_mm.errors import first_few

PROBED = 64
FEW_IMAGES = 1000
MAX_CHANNELS = 16
KINDS = dict(LMDBImages='LMDB database', WebDatasetImages='WebDataset shards', ImageFiles='folder of image files')
_VAL_SHARE, _VAL_IMAGES = 50, 16


@dataclass(frozen=True)
class Found:
    """The images, as far as a look at some of them tells.

    Args:
        dataset: Config of the data set without pipeline and split.
        count: Images in all.
        fingerprint: Of the list of their names.
        channels: That the models will have.
        mean, std: Of each channel, of the images that were looked at, in [0, 1].
        shortest: Shortest side among these, in pixels.
        val_every: One image of so many is held out.
        plain: Whether all that were looked at are grey or colour images of eight bits, not pages,
            arrays or 16 bits.
        broken: Names, with reasons, of those looked at that could not be read.
        most_stored: The most channels of an image of which some, as alpha, are not trained on; 0
            without such.
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
        return self.count - -(-self.count // self.val_every)


def dataset_cfg(source: str, index_file: Path, max_broken_share: float) -> dict:
    """Config of the data set for a folder, an LMDB database or WebDataset shards."""
    path = Path(source)
    options = dict(index_file=str(index_file), max_broken_share=max_broken_share)
    if path.suffix == '.lmdb' or (path / 'data.mdb').is_file():
        return dict(type='addp_mm.LMDBImages', path=str(path.absolute()), **options)
    pattern = not path.exists() and any(mark in source for mark in '*?[')
    if pattern or (_holds_shards(path, index_file.parent) if path.is_dir() else is_shard_name(path.name)):
        return dict(type='addp_mm.WebDatasetImages', shards=str(path.absolute()), **options)
    return dict(type='addp_mm.ImageFiles', root=str(path.absolute()), **options)


def _holds_shards(folder: Path, work_dir: Path) -> bool:
    """Whether a folder holds tar files, and neither pictures beside them nor folders that may hold some."""
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
    """List the images and look at some.

    Args:
        cfg: From :func:`dataset_cfg`.
        channels: What the user asked for; None to take the images' own.
        value_range: What the user gave for values whose type has no range.
        changed: What to do where the images are no longer those of the list: 'error', 'keep' or
            'rescan'.

    Raises:
        DatasetError: There are too few images, or those looked at are of different kinds, or of one
            that needs options.
    """
    from addp_mm.registry import DATASETS

    images = DATASETS.build(dict(cfg, changed=changed))
    if len(images) < 4:
        raise DatasetError(f'{images.source}: {len(images)} images; at least 4 are needed to train and hold some out')
    rows = sorted({len(images) * i // PROBED for i in range(PROBED)})
    looked_at, broken = [], []
    for row in rows:
        name = images.name(row)
        try:
            info = images.get_data_info(row)
            name = info['img_path']
            looked_at.append(_look(info, value_range))
        except (OSError, ValueError) as error:
            if not (changed == 'keep' and is_gone(error)):
                broken.append(f'{name} ({error})')
    if len(broken) > len(looked_at):
        raise DatasetError(
            f'{len(broken)} of {len(rows)} images looked at cannot be read: {first_few(broken, 3, "; ")}'
        )
    if not looked_at:
        raise DatasetError(
            f'{images.source}: the {len(rows)} images looked at are gone; list the images anew, with '
            '--restart-from tokenizer'
        )
    wanted = channels or _channels(looked_at)
    _check_values(looked_at)
    mean, std = _statistics(looked_at, wanted)
    shortest = min(look.side for look in looked_at)
    every = max(4, min(_VAL_SHARE, len(images) // _VAL_IMAGES))
    plain = all(look.ordinary and look.dtype == np.uint8 for look in looked_at)
    most_stored = max((look.stored for look in looked_at if look.stored != wanted and look.more_than_shown), default=0)
    return Found(cfg, len(images), images.fingerprint, wanted, mean, std, shortest, every, plain, broken, most_stored)


@dataclass(frozen=True)
class _Look:
    """What is kept of an image that was looked at.

    Args:
        name: Its path.
        channels: That it is best trained with.
        ordinary: Whether it is grey or colour as usual.
        dtype: Of its values.
        side: The shorter one, in pixels.
        stored: Number of its channels, with alpha.
        more_than_shown: Whether alpha or other bands stand beside grey or colour.
        array: Whether it is a file of numpy.
        bounds: Lowest and highest value, where nothing says which are black and white; None where
            that is known.
        moments: Mean and mean square of each stored channel, shape (2, C), in [0, 1]; None where
            there are bounds.
        shown: The same of its grey or colour, without alpha and other bands.
        grey: The same of the mean of these, shape (2, 1).
    """

    name: str
    channels: int
    ordinary: bool
    dtype: np.dtype
    side: int
    stored: int
    more_than_shown: bool
    array: bool
    bounds: tuple[float, float] | None = None
    moments: np.ndarray | None = None
    shown: np.ndarray | None = None
    grey: np.ndarray | None = None


def _look(info: dict, value_range: tuple[float, float] | None) -> _Look:
    from addp_mm.datasets.readers.load_image import image_content
    from addp_mm.datasets.readers.read_image import is_array, read_image

    content = image_content(dict(info), None)
    # of grey or colour, alpha is no channel
    image = read_image(content)
    shown = image.visible() if image.colour else image.values
    values, channels = image.values, image.num_channels
    about = (
        info['img_path'],
        image.colour if image.ordinary else channels,
        image.ordinary,
        values.dtype,
        min(values.shape[:2]),
        channels,
        bool(image.colour) and channels > image.colour,
        is_array(content),
    )
    if value_range is None and values.dtype not in (np.uint8, np.uint16, bool):
        finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values
        if not finite.size:
            raise ValueError('no finite values')
        return _Look(*about, bounds=(finite.min(), finite.max()))
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
        raise ValueError('values that are not finite')
    seen = _scaled(shown, value_range)
    return _Look(
        *about,
        moments=_moments(_scaled(values, value_range)),
        shown=_moments(seen),
        grey=_moments(seen.mean(1, keepdims=True)),
    )


def _scaled(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    low, high = value_range or (0, 1 if values.dtype == bool else np.iinfo(values.dtype).max)
    return ((values.reshape(-1, values.shape[2]).astype(np.float64) - low) / (high - low)).clip(0, 1)


def _moments(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels.mean(0), np.square(pixels).mean(0)])


def _channels(looked_at: list[_Look]) -> int:
    kinds = Counter(look.channels for look in looked_at)
    if set(kinds) == {1, 3} and all(look.ordinary for look in looked_at):
        return 3
    if len(kinds) > 1:
        examples = {look.channels: look.name for look in reversed(looked_at)}
        raise DatasetError(
            'images of different numbers of channels: '
            + '; '.join(
                f'{channels} ({kinds[channels]} of those looked at, as {examples[channels]})'
                for channels in sorted(kinds)
            )
            + '. Give --channels, and remove what has another number'
        )
    channels = next(iter(kinds))
    if channels > MAX_CHANNELS:
        order = '; arrays must be (H, W, C)' if looked_at[0].array else ''
        raise DatasetError(f'{looked_at[0].name} has {channels} channels; 1 to {MAX_CHANNELS} can be trained on{order}')
    return channels


def _check_values(looked_at: list[_Look]) -> None:
    for look in looked_at:
        if look.bounds is not None:
            raise DatasetError(
                f"{look.name}: {look.dtype} values have no known range; this image's lie between "
                f'{look.bounds[0]:g} and {look.bounds[1]:g}. Give --value-range LOW HIGH'
            )


def _statistics(looked_at: list[_Look], channels: int) -> tuple[list, list]:
    """Mean and deviation of each channel; of all channels together where the models will have other ones."""
    # each image counts alike, whatever its size
    mean, square = np.mean(
        [
            next(
                (moments for moments in (look.moments, look.shown) if moments.shape[1] == channels),
                look.grey.repeat(channels, 1),
            )
            for look in looked_at
        ],
        0,
    )
    std = np.sqrt((square - mean**2).clip(1e-4))
    return [round(float(value), 3) for value in mean], [round(float(value), 3) for value in std]


def warnings(found: Found, image_size: int, size: str) -> list[str]:
    """What is likely to disappoint, in words."""
    words = []
    if found.count < FEW_IMAGES:
        words.append(
            f'{found.count:,} images are few: predictor and ADDP will learn them by heart. Under '
            f'{FEW_IMAGES:,} start from weights of other images, or take --size nano and look at what is held '
            'out'
        )
    if found.count < 20_000 and size in ('base', 'large'):
        words.append(
            f'{found.count:,} images are few for --size {size}; --size small trains faster and is likely to '
            'generalise better'
        )
    if found.shortest < image_size:
        words.append(f'some images have a side of {found.shortest} px and are enlarged to {image_size} px')
    if found.most_stored:
        words.append(
            f'some images have {found.most_stored} channels, of which {found.channels} are trained on: alpha '
            'is laid on white, other bands are left out. Where these are to be learned from as well, give '
            f'--channels {found.most_stored}'
        )
    return words
