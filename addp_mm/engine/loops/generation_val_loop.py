# Copyright (c) addp_mm contributors. Apache-2.0.
"""Validate a generative model by the images that it generates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.runner import Runner, ValLoop
from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.engine.strategies.sharded import whole_outside_of_units
from addp_mm.engine.unwrap import bare_model
from addp_mm.errors import ConfigError
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule, image_generator
from addp_mm.registry import LOOPS


class ImageNumbers(Dataset):
    """The numbers of the images to generate, which a data loader shares out to the processes.

    Args:
        num_images: Number of images.
        metainfo: Information of the training data, for the visualizer. Defaults to None.
    """

    def __init__(self, num_images: int, metainfo: dict | None = None) -> None:
        self.num_images, self.metainfo = num_images, metainfo or {}

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> int:
        return index


@LOOPS.register_module()
class GenerationValLoop(ValLoop):
    """Generates images with the model that is trained, and passes them to the evaluator.

    The noise of an image depends on the seed and on its number only. So the images are those of
    every validation, batch size and number of processes, and those that ``addp generate`` gives
    with the same seed and options. With an EMAHook the averaged weights generate. The random
    numbers of the training do not change.

    Args:
        runner: The runner, of an ADDP pre-training.
        dataloader: Loader of :class:`ImageNumbers`, or its config, in their order.
        evaluator: Evaluator of predictions with ``image``, (C, H, W) in [0, 1], such as
            :class:`~addp_mm.evaluation.GenerationMetric`; or its config.
        sampler: Arguments of :class:`~addp_mm.generation.SamplingSchedule`. Defaults to None.
        guidance: Arguments of :class:`~addp_mm.generation.Guidance`, for a model with classes. It
            generates its classes in turn. Defaults to None.
        seed: Seed of the images. Defaults to 0.
        fp16: As in :class:`mmengine.runner.ValLoop`. Defaults to False.

    Raises:
        ConfigError: The model does not generate, or an option of the sampler or the guidance is
            wrong.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader,
        evaluator,
        sampler: dict | None = None,
        guidance: dict | None = None,
        seed: int = 0,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.sampler, self.guidance, self.seed = dict(sampler or {}), guidance, seed
        model = bare_model(runner)
        if not hasattr(model, 'predict_tokens'):
            raise ConfigError(f'{type(model).__name__} does not generate images; this validation is for ADDP')
        try:
            self._build_sampler()
        except (TypeError, ValueError) as error:
            raise ConfigError(f'sampler or guidance of the generated images: {error}') from error

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Sequence[int]) -> None:
        """Generate one batch and pass it to the evaluator."""
        self.runner.call_hook('before_val_iter', batch_idx=idx, data_batch=data_batch)
        outputs = [dict(image=image) for image in self.generate(data_batch)]
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook('after_val_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)

    @torch.no_grad()
    def generate(self, numbers: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of these numbers; the model must be in eval mode."""
        sampler = self._build_sampler()
        streams = [image_generator(self.seed, number) for number in numbers]
        labels = [number % sampler.num_classes for number in numbers] if sampler.num_classes else None
        device = next(bare_model(self.runner).parameters()).device
        with whole_outside_of_units(self.runner.model), torch.autocast(device.type, enabled=self.fp16):
            return sampler.complete(*sampler.blank(len(numbers)), streams, labels).images

    def _build_sampler(self) -> AlternatingSampler:
        model = bare_model(self.runner)
        guidance = None if self.guidance is None else Guidance(**self.guidance)
        return AlternatingSampler(model, model.latent_size, SamplingSchedule.of(self.sampler), guidance)
