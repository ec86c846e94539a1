# Copyright (c) addp_mm contributors. Apache-2.0.
"""A whole training step as ``compile=True`` runs it, next to the same step without compilation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from addp_mm.analysis import TrainingStep
from addp_mm.analysis.batches import scope_of
from addp_mm.benchmark.compilations import Compilations, Counts, recorded_compilations
from addp_mm.randomness import Purpose, seed_process

FIRST_STEPS = 2
IGNORED = 255


class WholeStep:
    """A training step; each has another batch, learning rate and other random numbers.

    Images are noise. The number of objects in an image and of unlabelled pixels differs.

    Args:
        step: Model, optimizer and a batch.
        seed: Seed of batches and random numbers.
        compile: Arguments of ``torch.compile``. Defaults to None: the step is not compiled.

    Attributes:
        gradients: Those of the last step, after clipping, if :meth:`keep_gradients` was called.
    """

    def __init__(self, step: TrainingStep, seed: int, compile: Mapping[str, Any] | None = None) -> None:
        self.step, self.seed, self.number = step, seed, 0
        train_step: Callable = step.model.train_step
        self._train_step = train_step if compile is None else torch.compile(train_step, **compile)
        self.gradients: dict[str, Tensor] = {}

    def __call__(self) -> float:
        """Take the next step; returns its loss."""
        seed_process(self.seed, Purpose.TRAINING_STEP, iteration=self.number)
        batch = vary(self.step.batch, self.seed + self.number)
        for optimizer in self.step.optimizers:
            for group in optimizer.param_groups:
                group['lr'] *= 0.99
        self.number += 1
        with scope_of(self.step.cfg):
            logged = self._train_step(batch, self.step.optimizer)
        return float(logged['loss'].detach())

    def keep_gradients(self) -> None:
        """Keep the gradients of each step from now on."""
        names = {id(parameter): name for name, parameter in self.step.model.named_parameters()}

        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    if parameter.grad is not None:
                        self.gradients[names[id(parameter)]] = parameter.grad.detach().clone()

        for optimizer in self.step.optimizers:
            optimizer.register_step_pre_hook(keep)


@dataclass
class Comparison:
    """A compiled step next to the same step without compilation.

    Args:
        eager: The step without compilation.
        compiled: The compiled step.
        compilations: Why it was compiled again.
        first: What was compiled in the first two steps.
        later: What was compiled in the steps after them.
        seconds: Time of the first two compiled steps.
        loss: Largest relative difference of a loss.
        gradient: Largest relative difference of the gradients of a step.
        breaks: Number of graph breaks by their reason.
    """

    eager: WholeStep
    compiled: WholeStep
    compilations: Compilations
    first: Counts = Counts(0, 0)
    later: Counts = Counts(0, 0)
    seconds: float = 0.0
    loss: float = 0.0
    gradient: float = 0.0
    breaks: dict[str, int] = field(default_factory=dict)


def compare(build: Callable[[], TrainingStep], seed: int, steps: int, compile: Mapping[str, Any]) -> Comparison:
    """Take the same steps with and without compilation, from the same weights each.

    Args:
        build: Builds the step; the weights follow from torch's seed.
        seed: Seed of weights, batches and random numbers.
        steps: Steps after the first two.
        compile: Arguments of ``torch.compile``.
    """
    with recorded_compilations() as compilations:
        found = Comparison(_begin(build, seed, None), _begin(build, seed, compile), compilations)
        for number in range(FIRST_STEPS + steps):
            found.compiled.step.model.load_state_dict(found.eager.step.model.state_dict())
            expected = found.eager()
            start = time.perf_counter()
            loss = found.compiled()
            if number < FIRST_STEPS:
                found.seconds += time.perf_counter() - start
                found.first = compilations.counts
            found.loss = max(found.loss, _finite(abs(loss - expected) / max(abs(expected), 1e-12)))
            found.gradient = max(found.gradient, _finite(_difference(found.compiled.gradients, found.eager.gradients)))
        found.later, found.breaks = compilations.counts.since(found.first), dict(compilations.graph_breaks)
    return found


def vary(batch: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A batch like another: images of noise, other numbers of objects and unlabelled pixels.

    Args:
        batch: Of :func:`~addp_mm.analysis.batches.synthetic_batch`; it stays as it is.
        seed: Another seed gives another batch.
    """
    generator = torch.Generator().manual_seed(seed)
    varied, inputs = copy.deepcopy(dict(batch)), batch['inputs']
    # ids of tokens are below the size of every codebook
    high = 8 if isinstance(inputs, Tensor) and inputs.dtype == torch.long else 256
    noise = [torch.randint(high, one.shape, generator=generator, dtype=one.dtype) for one in inputs]
    varied['inputs'] = torch.stack(noise) if isinstance(inputs, Tensor) else noise
    for sample in varied.get('data_samples') or ():
        if hasattr(sample, 'gt_instances'):
            number = int(torch.randint(1, 1 + len(sample.gt_instances), (), generator=generator))
            sample.gt_instances = sample.gt_instances[:number]
        elif hasattr(sample, 'gt_sem_seg'):
            height = sample.gt_sem_seg.data.shape[1]
            sample.gt_sem_seg.data[:, : int(torch.randint(height // 2, (), generator=generator))] = IGNORED
    return varied


def _begin(build: Callable[[], TrainingStep], seed: int, compile: Mapping[str, Any] | None) -> WholeStep:
    torch.manual_seed(seed)
    step = WholeStep(build(), seed, compile)
    step.keep_gradients()
    return step


def _difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Norm of the difference of all gradients over their norm; infinite if one is missing."""
    if found.keys() != expected.keys() or not expected:
        return float('inf')
    squares = [(found[name].double() - one.double()).square().sum() for name, one in expected.items()]
    norm = torch.stack([one.double().square().sum() for one in expected.values()]).sum().sqrt()
    return float(torch.stack(squares).sum().sqrt() / norm)


def _finite(difference: float) -> float:
    """The difference; infinity for NaN, which ``max`` ignores."""
    return difference if math.isfinite(difference) else math.inf
