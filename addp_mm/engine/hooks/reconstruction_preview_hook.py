# Copyright (c) addp_mm contributors. Apache-2.0.
"""Show figures of a tokenizer's reconstructions."""

from __future__ import annotations

from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.averages import averaged_weights
from addp_mm.engine.hooks.previews import evaluating, show
from addp_mm.engine.unwrap import bare_model
from addp_mm.generation import figures
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class ReconstructionPreviewHook(Hook):
    """Show a tokenizer's reconstructions below their originals, in training and in tests.

    Training always shows the same images: the first of the first batch. The model must have
    ``reconstruct(images in [0, 1]) -> images``. A test shows the first images of the dataset, from
    predictions with ``image`` and ``reconstruction``. If images have more than three channels, the
    first three are shown. With an EMAHook the averaged weights draw, as in the checkpoints.

    Args:
        interval: Iterations between previews; the last iteration also shows one. Defaults to 1000.
        num_images: Images of a preview. Defaults to 8.
        side: Smallest length of the longer side of each image, in pixels. Defaults to 128.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is less than 1.
    """

    # after EMAHook, and before checkpoints are saved
    priority = 'LOW'

    def __init__(self, interval: int = 1000, num_images: int = 8, side: int = 128) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval and num_images must be at least 1, got {interval} and {num_images}')
        self.interval, self.num_images, self.side = interval, num_images, side
        self.images: torch.Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Check that the model can reconstruct."""
        if not hasattr(bare_model(runner), 'reconstruct'):
            raise TypeError(
                f'{type(bare_model(runner)).__name__} has no method reconstruct(images), which '
                'ReconstructionPreviewHook shows; remove the hook from custom_hooks'
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show a preview when it is due."""
        if not dist.is_main_process():
            return
        model = bare_model(runner)
        if self.images is None:
            inputs = model.data_preprocessor(data_batch, False)['inputs']
            self.images = (inputs[0] if isinstance(inputs, (list, tuple)) else inputs)[: self.num_images].clone()
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        with averaged_weights(runner), evaluating(model):
            self._show(runner, self.images, model.reconstruct(self.images))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show the first images of the dataset."""
        if batch_idx == 0 and dist.is_main_process():
            samples = outputs[: self.num_images]
            self._show(
                runner,
                torch.stack([sample.image for sample in samples]),
                torch.stack([sample.reconstruction for sample in samples]),
            )

    def _show(self, runner: Runner, images: torch.Tensor, reconstructions: torch.Tensor) -> None:
        tiles = [
            figures.enlarge(image, self.side) for row in (images, reconstructions) for image in figures.to_uint8(row)
        ]
        show(runner, 'reconstructions', figures.image_grid(tiles, columns=len(images)))
