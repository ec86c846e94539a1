# Copyright (c) addp_mm contributors. Apache-2.0.
"""A batch for detectors of any kind, in the format of a data loader."""

import numpy as np
import torch

THINGS = 2  # classes of the two objects are 0 and 1


def detection_batch(sizes=((64, 96), (96, 64)), with_mask: bool = True, background: int | None = None) -> dict:
    """Two images with two objects each: boxes, labels, masks and, for panoptic heads, a class map.

    Args:
        sizes: (height, width) of each image in pixels, at least 64 x 64. Defaults to
            ((64, 96), (96, 64)).
        with_mask: Whether the objects have masks. Defaults to True.
        background: Class of pixels without an object; adds ``gt_sem_seg``. Defaults to None.
    """
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for index, (height, width) in enumerate(sizes):
        masks = np.zeros((THINGS, height, width), dtype=np.uint8)
        masks[0, 8:40, 4:36], masks[1, 20:60, 30:62] = 1, 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width),
                ori_shape=(height, width),
                scale_factor=(1.0, 1.0),
                img_id=index,
                img_path=f'{index}.jpg',
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 8.0, 36.0, 40.0], [30.0, 20.0, 62.0, 60.0]]), labels=torch.tensor([0, 1])
        )
        if with_mask:
            sample.gt_instances.masks = BitmapMasks(masks, height, width)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        if background is not None:
            classes = np.full((height, width), background, dtype=np.int64)
            for label, mask in enumerate(masks):
                classes[mask == 1] = label
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(classes)[None])
        inputs.append(torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8)))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
