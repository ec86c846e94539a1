# Copyright (c) addp_mm contributors. Apache-2.0.
"""A transform that creates one view of an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from mmcv.transforms import BaseTransform

from addp_mm.datasets.views.views import Views
from addp_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MakeView(BaseTransform):
    """Create one square view of an image of any number of channels, resized with antialiasing.

    The views are those of ``tools/dataset_converters/tokenize_images.py``, so that tokenizer,
    predictor and ADDP train on the same kind of image. Random values come from numpy's global
    generator, as in the transforms of mmcv.

    Required keys: ``img``, shape (H, W) or (H, W, C), 0 to 255. Changed keys: ``img``,
    ``img_shape``.

    Args:
        image_size: Side in pixels.
        augmentation: 'crop': a random resized crop. 'flip' and 'none': the centre square. 'crop'
            and 'flip' flip it with probability 0.5. Defaults to 'crop'.
        crop_scale: Smallest and largest share of the image's area in a crop. Defaults to
            (0.2, 1.0).
        interpolation: 'bicubic' or 'bilinear'. Defaults to 'bicubic'.

    Raises:
        ValueError: A value is outside its range.
    """

    def __init__(
        self,
        image_size: int,
        augmentation: str = 'crop',
        crop_scale: tuple[float, float] = (0.2, 1.0),
        interpolation: str = 'bicubic',
    ) -> None:
        count = 2 if augmentation == 'flip' else 1
        self.views = Views(image_size, count, augmentation, (crop_scale[0], crop_scale[1]), interpolation)

    def transform(self, results: dict) -> dict:
        """Replace the image of ``results`` by its view."""
        image = results['img']
        image = image[..., None] if image.ndim == 2 else image
        views = self.views
        if views.augmentation == 'crop':
            views = replace(views, seed=int(np.random.randint(2**31)))  # noqa: NPY002
        made = views.make(image, 0)
        chosen = np.random.randint(2) if len(made) == 2 else 0  # noqa: NPY002
        results['img'] = np.ascontiguousarray(made[chosen].transpose(1, 2, 0))
        results['img_shape'] = results['img'].shape[:2]
        return results
