# Copyright (c) addp_mm contributors. Apache-2.0.
"""Draw a classifier's predictions on the images of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS
from addp_mm.report.png_name import png_name


def image_name(sample: Any, root: str | None) -> Path:
    """Relative path of the drawn image: the image's path below ``root``.

    Args:
        sample: Result of a model, with ``img_path`` if it was read from a file, and ``sample_idx``.
        root: Folder of the dataset; None if it is unknown.

    Returns:
        The path below ``root``; the whole path for an image outside ``root``; the number of the
        sample for an image without a file. It ends in ``.png``.
    """
    if 'img_path' not in sample:
        return Path(f'{sample.sample_idx}.png')
    path = Path(sample.img_path).absolute()
    folder = Path(root or path.anchor).absolute()
    name = path.relative_to(folder if path.is_relative_to(folder) else path.anchor)
    return png_name(name)


@HOOKS.register_module()
class DrawnImagesHook(Hook):
    """Draws the predictions on every image of a test.

    mmpretrain's own hook overwrites drawn images with the same file name. It also swaps red and
    blue in images that were loaded as BGR.

    Args:
        out_dir: Folder for the drawn images. Their paths below it are those of the images below the
            root of the dataset.
        **draw_args: Arguments of mmpretrain's ``UniversalVisualizer.visualize_cls``.
    """

    def __init__(self, out_dir: str, **draw_args: Any) -> None:
        self.out_dir, self.draw_args = Path(out_dir), draw_args

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draw the images of a batch."""
        swapped = getattr(bare_model(runner).data_preprocessor, 'to_rgb', False)
        root = getattr(runner.test_loop.dataloader.dataset, 'data_root', None)
        for image, sample in zip(data_batch['inputs'], outputs, strict=True):
            image = image.flip(0) if swapped else image  # to red, green, blue
            pixels = image.permute(1, 2, 0).cpu().numpy().astype('uint8')
            runner.visualizer.visualize_cls(
                image=pixels,
                data_sample=sample,
                out_file=str(self.out_dir / image_name(sample, root)),
                **self.draw_args,
            )
