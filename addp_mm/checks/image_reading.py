# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read images in the checks in the same way as the pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import TRANSFORMS

from addp_mm.checks.dataset_cfg import transforms_of
from addp_mm.checks.tolerance import file_time_limit
from addp_mm.checks.type_lookup import find_type
from addp_mm.config.type_names import type_name
from addp_mm.datasets.readers.load_image import LoadImage
from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_rgb, upright_size


class ImageReading(NamedTuple):
    """Functions that read images.

    Attributes:
        decode: Takes the bytes of a file; raises a ValueError if they are not an image.
        size: Takes a path; returns height and width in pixels of the loaded image, or None if they
            are unknown.
    """

    decode: Callable[[bytes], object]
    size: Callable[[Path], tuple[int, int] | None]


def reading_of(pipeline: Any) -> ImageReading:
    """Functions that read images as the first loader of a pipeline does.

    Args:
        pipeline: The ``pipeline`` of a dataset config. Without one, images are read as
            :class:`LoadImage` reads them.

    Returns:
        The functions that read images. For a loader of an unknown class, they only refuse empty
        files.
    """
    if not pipeline:
        return _COLOUR
    loader = next(filter(_loads_images, transforms_of(pipeline)), {})
    kind = loader.get('type')
    found = find_type(kind, TRANSFORMS)
    if isinstance(found, type) and issubclass(found, LoadMultiChannelImage):
        arguments = {key: value for key, value in loader.items() if key != 'type'}
        return ImageReading(found(**arguments).decode, upright_size_in_time)
    ours = isinstance(found, type) and issubclass(found, LoadImage) and found.transform is LoadImage.transform
    known = ours or type_name(kind) == 'LoadImageFromFile'  # a subclass of mmcv's loader may read in another way
    return _COLOUR if known and _as_colour(loader) else _OTHERS


def upright_size_in_time(path: Path) -> tuple[int, int] | None:
    """As ``upright_size``; also None if the file is not read within the checks' time limit."""
    with file_time_limit():
        return upright_size(path)


def _loads_images(transform: Mapping) -> bool:
    """Whether a transform loads images: the names of loaders start alike in all packages."""
    kind = type_name(transform.get('type'))
    return kind.startswith('Load') and 'Annotation' not in kind


def _as_colour(loader: Mapping) -> bool:
    """Whether mmcv's loader returns three channels and applies the EXIF orientation."""
    return loader.get('color_type', 'color') in ('color', 'grayscale') and loader.get('imdecode_backend') != 'tifffile'


def _require_content(content: bytes) -> None:
    if not content:
        raise ValueError('an empty file')


_COLOUR = ImageReading(read_rgb, upright_size_in_time)
_OTHERS = ImageReading(_require_content, lambda _: None)
