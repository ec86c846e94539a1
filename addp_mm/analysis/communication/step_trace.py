# Copyright (c) addp_mm contributors. Apache-2.0.
"""When a training step reaches its blocks and gradients, in operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from addp_mm.analysis.batches import (
    build_model,
    losses_of,
    pad_to,
    precision_of,
    scope_of,
    synthetic_batch,
    training_size,
)
from addp_mm.analysis.costs import flop_counter
from addp_mm.analysis.training_step import is_batch_norm, ready_to_train, smallest_batch

FORWARD, FORWARD_END, BACKWARD, GRADIENT = 'forward', 'end of forward', 'backward', 'gradient'


@dataclass(frozen=True)
class Event:
    """A process reaches a module or a gradient.

    Args:
        kind: The forward or the backward pass of a module begins or ends, or the gradient of a
            parameter is complete.
        name: Name of the module or the parameter in the model.
        at: Operations before it.
    """

    kind: str
    name: str
    at: float


@dataclass(frozen=True)
class StepTrace:
    """A training step of one image.

    Args:
        model: The model that ran it, on the device 'meta': without its values.
        events: What it reached, in order.
        operations: Of the whole step: matrix products and convolutions, a multiplication with its
            addition as two.
        sync_norms: Channels of the batch norms that average over all processes, by name.
    """

    model: nn.Module
    events: tuple[Event, ...]
    operations: float
    sync_norms: dict[str, int]

    def gradients(self) -> list[Event]:
        """The events of the gradients, in order."""
        return [event for event in self.events if event.kind == GRADIENT]


def trace_step(cfg: Config, units: Iterable[str], img_size: tuple[int, int] | None = None) -> StepTrace:
    """Run forward and backward pass of a config's model on the CPU, on synthetic images.

    Args:
        cfg: Config of a training.
        units: Class names of the modules to trace, besides batch norms.
        img_size: Height and width in pixels. Defaults to None: as in training.
    """
    img_size = img_size or training_size(cfg)
    pad_to(cfg, img_size)
    model = build_model(cfg, keep_sync_norms=True)
    norms = {name: part.num_features for name, part in model.named_modules() if isinstance(part, nn.SyncBatchNorm)}
    # Without several processes they are plain batch norms, which also run on the CPU.
    model = ready_to_train(revert_sync_batchnorm(model))
    kinds = set(units)
    watched = [name for name, part in model.named_modules() if is_batch_norm(part) or type(part).__name__ in kinds]
    with scope_of(cfg), flop_counter() as counter:
        images = smallest_batch(model)
        events = _watch(model, watched, lambda: counter.get_total_flops() / images)
        data = model.data_preprocessor(synthetic_batch(cfg, images, img_size), training=True)
        with _autocast(cfg):  # casts change the order of the gradients
            losses = losses_of(model, data)
        loss, _ = model.parse_losses(losses)
        loss.backward()
        operations = counter.get_total_flops() / images
    training = {name: size for name, size in norms.items() if model.get_submodule(name).training}
    model.zero_grad()
    return StepTrace(model.to('meta'), tuple(events), operations, training)


def _autocast(cfg: Config) -> torch.autocast:
    precision = precision_of(cfg)
    return torch.autocast('cpu', getattr(torch, precision), enabled=precision != 'float32')


def _watch(model: nn.Module, modules: Iterable[str], count: Callable[[], float]) -> list[Event]:
    """Record the events of modules and trained parameters in the list that is returned."""
    events: list[Event] = []

    def note(kind: str, name: str) -> None:
        events.append(Event(kind, name, count()))

    def after_forward(name: str, output: object) -> None:
        note(FORWARD_END, name)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: note(BACKWARD, name))

    for name in modules:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, name=name: note(FORWARD, name))
        module.register_forward_hook(lambda _module, _inputs, output, name=name: after_forward(name, output))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: note(GRADIENT, name))
    return events
