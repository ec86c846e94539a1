# Copyright (c) addp_mm contributors. Apache-2.0.
"""How the checks read images: as the pipeline will that loads them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from addp_mm.checks.config_parts import transforms_of
from addp_mm.config.type_names import type_name
from addp_mm.datasets.readers.load_multi_channel_image import LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_rgb, upright_size


class ImageReading(NamedTuple):
    """How images are read.

    Args:
        decode: Takes the bytes of a file; a ValueError where they make no image.
        size: Takes a path; height and width of the image once it is loaded, None where they are not
            known.
    """

    decode: Callable[[bytes], object]
    size: Callable[[Path], tuple[int, int] | None]


def reading_of(pipeline: Any) -> ImageReading:
    """How the first loader of a pipeline reads images.

    What a loader of others makes of a file is not known: it then only needs to hold something.

    Args:
        pipeline: The ``pipeline`` of a dataset config; without one, images are read as
            :class:`LoadImage` does.
    """
    if not pipeline:
        return _COLOUR
    loader = next(filter(_loads_images, transforms_of(pipeline)), {})
    kind = type_name(loader.get('type'))
    if kind == 'LoadMultiChannelImage':
        arguments = {key: value for key, value in loader.items() if key != 'type'}
        return ImageReading(LoadMultiChannelImage(**arguments).decode, upright_size)
    return _COLOUR if kind in ('LoadImage', 'LoadImageFromFile') and _as_colour(loader) else _OTHERS


def _loads_images(transform: Mapping) -> bool:
    kind = type_name(transform.get('type'))
    return kind.startswith('Load') and 'Annotation' not in kind


def _as_colour(loader: Mapping) -> bool:
    """Whether mmcv's loader makes three channels of whatever it reads, put upright."""
    return loader.get('color_type', 'color') in ('color', 'grayscale') and loader.get('imdecode_backend') != 'tifffile'


def _require_content(content: bytes) -> None:
    if not content:
        raise ValueError('an empty file')


_COLOUR = ImageReading(read_rgb, upright_size)
_OTHERS = ImageReading(_require_content, lambda path: None)
