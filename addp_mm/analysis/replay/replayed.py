# Copyright (c) addp_mm contributors. Apache-2.0.
"""Forward and backward pass of a saved failed iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from addp_mm.analysis.replay.module_values import ModuleValues, recorded
from addp_mm.engine.guards.plain_data import from_plain
from addp_mm.randomness import Purpose, seed_process


@dataclass
class Pass:
    """What a forward and backward pass computed.

    Attributes:
        outputs: What the model logs, by name.
        values: Values of its modules.
        norms: Norm of the gradients of each component, without the loss scale.
        error: An error that ended the pass, or ''.
    """

    outputs: dict[str, float] = field(default_factory=dict)
    values: ModuleValues = field(default_factory=ModuleValues)
    norms: dict[str, float] = field(default_factory=dict)
    error: str = ''


class Replay:
    """Runs the batch of an event as often as asked, each time from the same state.

    Args:
        event: From :func:`~addp_mm.engine.guards.failed_batch.read_event`.
        model: The model in training mode, with the event's weights.
    """

    def __init__(self, event: Mapping[str, Any], model: nn.Module) -> None:
        self.event, self.model = event, model
        self._state = {name: value.clone() for name, value in model.state_dict().items()}

    def run(self, wrapper: BaseOptimWrapper | OptimWrapperDict, batch: Any) -> Pass:
        """Run forward and backward pass, with the seed of the iteration.

        Args:
            wrapper: Optimizer wrapper whose steps do nothing.
            batch: Plain data of a batch, from the event.
        """
        self.model.load_state_dict(self._state)
        for weight in self.model.parameters():
            weight.grad = None
        if self.event['seed'] is not None:
            seed_process(self.event['seed'], Purpose.TRAINING_STEP, self.event['rank'], self.event['iteration'] - 1)
        found = Pass()
        with recorded(self.model) as found.values:
            try:
                outputs = self.model.train_step(from_plain(_copied(batch)), wrapper)  # type: ignore[operator]
            # a model may check its values itself, and it is another one for a single sample
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                found.error = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
                return found
        found.outputs = {name: torch.as_tensor(value).item() for name, value in outputs.items() if _is_number(value)}
        found.norms = self._norms(wrapper)
        return found

    def _norms(self, wrapper: BaseOptimWrapper | OptimWrapperDict) -> dict[str, float]:
        parts = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        scalers = [part.loss_scaler for part in parts if hasattr(part, 'loss_scaler')]
        scale = scalers[0].get_scale() if scalers and scalers[0].is_enabled() else 1.0
        norms: dict[str, list[Tensor]] = {}
        for name, weight in self.model.named_parameters():
            if weight.grad is not None:
                norms.setdefault(name.partition('.')[0], []).append(weight.grad.float().norm())
        return {name: torch.stack(parts_of).norm().item() / scale for name, parts_of in norms.items()}


def _copied(value: Any) -> Any:
    """A batch whose tensors a data preprocessor may change."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or isinstance(value, Tensor) and value.numel() == 1
