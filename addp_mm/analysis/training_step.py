# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training and inference of a config on a synthetic batch, to be timed or measured."""

from __future__ import annotations

import copy

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from addp_mm.analysis.batches import (
    build_model,
    losses_of,
    pad_to,
    precision_of,
    scope_of,
    synthetic_batch,
    training_size,
)
from addp_mm.analysis.peak_memory import resident_peak
from addp_mm.config.config_file import ConfigError
from addp_mm.devices import is_accelerator, memory_statistics
from addp_mm.models.selfsup.frozen import mark_loaded


class TrainingStep:
    """Model, optimizer and synthetic batch of a config; each call is one step with one update.

    Weights are random, and no data is read. Gradient accumulation of the config is left out.

    Args:
        cfg: Config with an ``optim_wrapper``.
        batch_size: Number of images. Defaults to None: that of the config on one GPU.
        img_size: Height and width in pixels. Defaults to None: as in training.
        device: Device of the model. Defaults to 'cpu'.

    Raises:
        ConfigError: The config has no ``optim_wrapper``.
    """

    def __init__(
        self,
        cfg: Config,
        batch_size: int | None = None,
        img_size: tuple[int, int] | None = None,
        device: torch.device | str = 'cpu',
    ) -> None:
        if not cfg.get('optim_wrapper'):
            raise ConfigError('the config has no optim_wrapper, so it cannot be trained')
        self.cfg = cfg = copy.deepcopy(cfg)
        self.batch_size = batch_size or cfg.train_dataloader.batch_size
        self.img_size = img_size or training_size(cfg)
        pad_to(cfg, self.img_size)
        self.precision = precision_of(cfg)
        self.device = torch.device(device)
        self.model = ready_to_train(build_model(cfg).to(self.device))
        self.batch = synthetic_batch(cfg, self.batch_size, self.img_size)
        settings = copy.deepcopy(cfg.optim_wrapper)
        settings.pop('accumulative_counts', None)
        with scope_of(cfg):
            self.optimizer = build_optim_wrapper(self.model, settings)

    def __call__(self) -> None:
        """Preprocess, run the forward and the backward pass, and update the weights."""
        with scope_of(self.cfg), self.optimizer.optim_context(self.model):
            losses = losses_of(self.model, self.model.data_preprocessor(dict(self.batch), training=True))
        loss, _ = self.model.parse_losses(losses)
        self.optimizer.update_params(loss)

    def predict(self) -> None:
        """Preprocess, run the forward pass and the post-processing, in the precision of training.

        The model must be in eval mode.
        """
        with torch.no_grad(), scope_of(self.cfg), self.optimizer.optim_context(self.model):
            self.model.test_step(dict(self.batch))

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of the model's wrapper, or of its several wrappers."""
        wrappers = self.optimizer.values() if isinstance(self.optimizer, OptimWrapperDict) else [self.optimizer]
        return [wrapper.optimizer for wrapper in wrappers]

    def peak_memory(self) -> int | None:
        """Largest memory so far in bytes: what PyTorch allocated on a GPU, resident on the CPU."""
        if is_accelerator(self.device):
            memory = memory_statistics(self.device)
            return None if memory is None else memory.max_memory_allocated(self.device)
        return resident_peak()


def ready_to_train(model: BaseModel) -> BaseModel:
    """Set a model of random weights to training; its frozen components count as loaded."""
    for part in model.children():
        if hasattr(part, 'weights_loaded'):
            mark_loaded(part)
    return model.train()


def smallest_batch(model: BaseModel) -> int:
    """Smallest number of images of a training step in one process.

    A batch norm after a pooling to one pixel, as in UperNet, needs two.
    """
    return 2 if any(is_batch_norm(part) and part.training for part in model.modules()) else 1


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm of any kind."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001  # the base of all batch norms
