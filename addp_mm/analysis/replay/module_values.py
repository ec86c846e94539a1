# Copyright (c) addp_mm contributors. Apache-2.0.
"""The largest values of the outputs and gradients of a model's modules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Value:
    """The largest absolute value of a module's output, or of the gradient at it.

    Attributes:
        module: Name and class of the module.
        largest: Its largest absolute value; NaN if one is NaN.
    """

    module: str
    largest: float

    def __str__(self) -> str:
        return f'{self.module}: {self.largest:.3g}'


@dataclass
class ModuleValues:
    """Values in the order in which they were computed.

    Attributes:
        outputs: Of the forward pass.
        gradients: Of the backward pass.
    """

    outputs: list[Value] = field(default_factory=list)
    gradients: list[Value] = field(default_factory=list)


def first_non_finite(values: list[Value]) -> Value | None:
    """The first value that is NaN or Inf, or None."""
    return next((value for value in values if not math.isfinite(value.largest)), None)


def largest(values: list[Value]) -> Value | None:
    """The largest finite value, or None."""
    return max((value for value in values if math.isfinite(value.largest)), key=lambda one: one.largest, default=None)


@contextmanager
def recorded(model: nn.Module) -> Iterator[ModuleValues]:
    """A context in which the values of all modules are recorded."""
    values = ModuleValues()
    hooks = [
        module.register_forward_hook(_recorder(f'{name} ({type(module).__name__})', values))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield values
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(name: str, values: ModuleValues) -> Any:
    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in _tensors(output):
            values.outputs.append(Value(name, _largest(tensor)))
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: values.gradients.append(Value(name, _largest(gradient))))

    return record


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)


def _largest(tensor: Tensor) -> float:
    return tensor.detach().abs().max().item()  # a NaN is the largest
