# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of figures that are drawn from images."""

from pathlib import Path


def png_name(image: Path) -> Path:
    """Path of the figure of an image below the folder of figures: the image's own, in ``.png``.

    A root and ``..`` are left out, so that no file beside the image is overwritten. Images that
    differ only in their extension get different names.

    Example:
        >>> [png_name(Path(name)).as_posix() for name in ('a/x.png', 'a/x.jpg', '/data/x.png')]
        ['a/x.png', 'a/x.jpg.png', 'data/x.png']
    """
    below = Path(*(part for part in image.parts if part not in (image.anchor, '..')))
    return below if below.suffix == '.png' else below.with_name(f'{below.name}.png')
