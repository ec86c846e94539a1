# Copyright (c) addp_mm contributors. Apache-2.0.
"""The detectors that read what a model logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist
from torch import Tensor

from addp_mm.engine.guards.code_usage import CodeUsageGuard
from addp_mm.engine.guards.constant_prediction import ConstantPredictionGuard
from addp_mm.engine.guards.failed_batch import Failure
from addp_mm.engine.guards.loss_guard import LossGuard

_CONSTANT, _PERPLEXITY = 'constant_prediction', 'perplexity'


class LogDetectors:
    """Collapse of the loss, constant predictions, and the use of the codes.

    They compare means over all ranks. A model that logs ``constant_prediction`` has a loss in nats.

    Args:
        collapse: Arguments of LossGuard, which is then used for any model; None: for models whose
            loss is in nats; False: off.
        constant: Arguments of ConstantPredictionGuard; None: its defaults; False: off.
        codes: Arguments of CodeUsageGuard; None: its defaults; False: off.
    """

    def __init__(self, collapse: Any, constant: Any, codes: Any) -> None:
        self.any_loss = isinstance(collapse, Mapping)
        self.collapse = None if collapse is False else LossGuard(**options_of(collapse))
        self.constant = None if constant is False else ConstantPredictionGuard(**options_of(constant))
        self.codes = None if codes is False else CodeUsageGuard(**options_of(codes))

    def check(self, outputs: Mapping[str, Any], iteration: int, max_iters: int) -> Failure | None:
        """Check the values of one iteration, whose loss is finite on all ranks.

        Args:
            outputs: What the model logs, scalars by name.
            iteration: Number of the iteration, counted from 1.
            max_iters: Iterations of the training.
        """
        names = [name for name in ('loss', _CONSTANT, _PERPLEXITY) if isinstance(outputs.get(name), Tensor)]
        in_nats = _CONSTANT in names
        if 'loss' not in names or not (self.any_loss or in_nats or _PERPLEXITY in names):
            return None
        values = torch.stack([outputs[name].detach().double() for name in names]).cpu()
        dist.all_reduce(values, 'mean')
        mean = dict(zip(names, values.tolist(), strict=True))
        if not all(map(math.isfinite, mean.values())):
            return None
        found: list[tuple[str, str | None]] = []
        if self.collapse is not None and (self.any_loss or in_nats):
            found.append(('collapse', self.collapse.check(mean['loss'])))
        if self.constant is not None and in_nats:
            reason = self.constant.check(mean['loss'], mean[_CONSTANT], iteration, max_iters)
            found.append(('constant', reason))
        if self.codes is not None and _PERPLEXITY in names:
            found.append(('codes', self.codes.check(mean[_PERPLEXITY])))
        return next((Failure(kind, reason) for kind, reason in found if reason), None)

    def state(self) -> dict:
        """States of the detectors by kind, for a checkpoint."""
        return {kind: detector.state() for kind, detector in self._named().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state`."""
        for kind, detector in self._named().items():
            if state.get(kind) is not None:
                detector.load(state[kind])

    def _named(self) -> dict[str, Any]:
        named = dict(collapse=self.collapse, constant=self.constant, codes=self.codes)
        return {kind: detector for kind, detector in named.items() if detector is not None}


def options_of(given: dict | bool | None) -> dict:
    """Arguments of a detector; none for its defaults."""
    return dict(given) if isinstance(given, Mapping) else {}
