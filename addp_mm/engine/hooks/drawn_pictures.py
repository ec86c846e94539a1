# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pictures of a test with what a classifier found drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS


def picture_name(sample, root: str | None) -> Path:
    """Name of the drawn picture: the path of the image below ``root``, its whole path elsewhere, else its number.

    Args:
        sample: Result of a model, with ``img_path`` where it was read from a file, and
            ``sample_idx``.
        root: Folder of the data set.
    """
    if 'img_path' not in sample:
        return Path(f'{sample.sample_idx}.png')
    path = Path(sample.img_path).absolute()
    folder = Path(root or path.anchor).absolute()
    name = path.relative_to(folder if path.is_relative_to(folder) else path.anchor)
    return name if name.suffix == '.png' else name.with_name(f'{name.name}.png')


@HOOKS.register_module()
class DrawnPictures(Hook):
    """Draws on every picture of a test.

    mmpretrain's own hook lets those of one file name replace each other, and shows blue what is red
    in images that were loaded in the order blue, green, red.

    Args:
        out_dir: Folder for the pictures; below it they lie as below the root of the data set.
        **draw_args: Of mmpretrain's ``UniversalVisualizer.visualize_cls``.
    """

    def __init__(self, out_dir: str, **draw_args) -> None:
        self.out_dir, self.draw_args = Path(out_dir), draw_args

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        swapped = getattr(bare_model(runner).data_preprocessor, 'to_rgb', False)
        root = getattr(runner.test_loop.dataloader.dataset, 'data_root', None)
        for image, sample in zip(data_batch['inputs'], outputs, strict=True):
            image = image.flip(0) if swapped else image  # to red, green, blue
            pixels = image.permute(1, 2, 0).cpu().numpy().astype('uint8')
            runner.visualizer.visualize_cls(
                image=pixels,
                data_sample=sample,
                out_file=str(self.out_dir / picture_name(sample, root)),
                **self.draw_args,
            )
