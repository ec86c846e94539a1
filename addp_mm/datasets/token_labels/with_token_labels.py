# Copyright (c) addp_mm contributors. Apache-2.0.
"""The transform that augments an image and carries its label map along."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mmcv.transforms import BaseTransform

from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.open_maps import open_label_maps
from addp_mm.datasets.token_labels.token_labels import token_labels
from addp_mm.datasets.token_labels.view import VIEW, WHOLE_IMAGE
from addp_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class WithTokenLabels(BaseTransform):
    """Apply transforms to an image, and read the labels of its tokens from its label map.

    It follows mmpretrain's RandomResizedCrop, RandomCrop, EfficientNetRandomCrop, RandomFlip,
    Rotate, Shear, Translate and RandAugment, and mmcv's resizing of the whole image. Changes of
    colours and RandomErasing leave the labels as they are. Put all transforms that move pixels into
    ``transforms``.

    Required keys: ``img``, ``img_path``. Added key: ``token_labels``, float32 (C, 1 + h * w): the
    label of the view, then those of its tokens, row by row; see
    :func:`~addp_mm.datasets.token_labels.token_labels.token_labels`.
    ``PackInputs(algorithm_keys=['token_labels'])`` keeps it.

    Args:
        label_maps: Folder of label maps, from ``addp label-maps``, or as published for ImageNet.
        images: Folder that contains the images of the maps: the one that was given to the tool.
        num_classes: Number C of classes.
        patch_size: Side in pixels of a token of the last map. Defaults to 16.
        transforms: Configs of the transforms. Defaults to (): none.

    Raises:
        LabelMapError: There are no label maps, or those of another number of classes; later, an
            image has no map, or its map is damaged.
        DatasetError: A transform moves pixels in a way that is not recorded.

    Example:
        >>> dict(
        ...     type='addp_mm.WithTokenLabels',
        ...     label_maps='data/imagenet/label_maps',
        ...     images='data/imagenet/train',
        ...     num_classes=1000,
        ...     transforms=[
        ...         dict(type='RandomResizedCrop', scale=224),
        ...         dict(type='RandomFlip', prob=0.5),
        ...     ],
        ... )  # doctest: +SKIP
    """

    def __init__(
        self, label_maps: str, images: str, num_classes: int, patch_size: int = 16, transforms: Sequence[Mapping] = ()
    ) -> None:
        from addp_mm.datasets.token_labels.tracked_transforms import tracked

        self.images, self.num_classes, self.patch_size = images, num_classes, patch_size
        self.maps = open_label_maps(label_maps, num_classes)
        self.transforms = [tracked(cfg) for cfg in transforms]

    def transform(self, results: dict) -> dict | None:
        """Transform the image of ``results``. For the keys see the class."""
        label_map = self.maps.read(name_below(self.images, results['img_path']))
        results[VIEW] = WHOLE_IMAGE
        for step in self.transforms:
            changed = step(results)
            if changed is None:
                return None
            results = changed
        height, width = results['img'].shape[:2]
        if height % self.patch_size or width % self.patch_size:
            raise LabelMapError(
                f'{results["img_path"]}: after the transforms of WithTokenLabels the image is {height} x {width}, '
                f'which is no multiple of patch_size={self.patch_size}. Correct the size of the crop, or patch_size'
            )
        grid = height // self.patch_size, width // self.patch_size
        results['token_labels'] = token_labels(label_map, results.pop(VIEW), grid, self.num_classes)
        return results


def name_below(folder: str, path: str) -> str:
    """The path of an image below the folder of all images, with ``/`` between its parts.

    Raises:
        LabelMapError: The image is elsewhere.
    """
    name = os.path.relpath(path, folder)
    if name.startswith(os.pardir):
        raise LabelMapError(f'{path} is not below images={folder} of WithTokenLabels. Correct images in the config')
    return name.replace(os.sep, '/')
