# Copyright (c) addp_mm contributors. Apache-2.0.
"""Exchanges of a training step with FullyShardedDataParallel."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from addp_mm.analysis.communication.exchange import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER, Exchange, Group, Waits
from addp_mm.analysis.communication.step_trace import BACKWARD, FORWARD, FORWARD_END, GRADIENT, StepTrace
from addp_mm.analysis.training_step import is_batch_norm
from addp_mm.engine.strategies.sharded import frozen_modules

_ALIGNMENT = 16  # bytes, of each parameter in a unit
_ROOT = ''


@dataclass(frozen=True)
class Sharding:
    """How weights and gradients are spread over the processes.

    Args:
        shards: Processes that share a copy of the weights.
        copies: Processes that have the same shard of different copies, and average its gradients;
            None if there is one copy.
        release: Whether the weights of a block are released after its forward pass (FULL_SHARD,
            HYBRID_SHARD), or only after its backward pass (SHARD_GRAD_OP).
        dtype: Type of the weights and gradients that are exchanged. Defaults to torch.float32.
        clips: Whether gradients are clipped by their norm. Defaults to False.
    """

    shards: Group
    copies: Group | None
    release: bool
    dtype: torch.dtype = torch.float32
    clips: bool = False

    @classmethod
    def named(cls, name: str, processes: int, per_node: int, **settings) -> Sharding:
        """The sharding of a strategy.

        Args:
            name: 'FULL_SHARD', 'SHARD_GRAD_OP' or 'HYBRID_SHARD' (a copy on each node).
            processes: Number of processes.
            per_node: Largest number of processes of a node.
            **settings: ``dtype`` and ``clips``.
        """
        shards, copies = Group.of_all(processes, per_node), None
        if name == 'HYBRID_SHARD':
            node = min(processes, per_node)
            shards, copies = Group(node, node), Group(processes // node, 1, at_once=node)
        return cls(shards, copies, release=name != 'SHARD_GRAD_OP', **settings)

    @property
    def is_mixed(self) -> bool:
        """Whether weights are exchanged in a lower precision."""
        return self.dtype != torch.float32


def units_of(model: nn.Module, classes: Collection[str], norms_alone: bool = False) -> dict[str, list[nn.Parameter]]:
    """Parameters of each unit, by its name; '' is the unit of everything else.

    Modules without a trained parameter are not sharded.

    Args:
        model: The model.
        classes: Class names of the units.
        norms_alone: Whether each batch norm is a unit, as in mixed precision. Defaults to False.
    """
    frozen = {id(part) for module in frozen_modules(model) for part in module.modules()}
    units: dict[str, list[nn.Parameter]] = {_ROOT: []}
    seen: set[int] = set()

    def collect(module: nn.Module, name: str, unit: str) -> None:
        if id(module) in frozen:
            return
        if name and (type(module).__name__ in classes or (norms_alone and is_batch_norm(module))):
            unit = name
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                units.setdefault(unit, []).append(parameter)
        for key, child in module.named_children():
            collect(child, f'{name}.{key}'.lstrip('.'), unit)

    collect(model, _ROOT, _ROOT)
    return {name: parameters for name, parameters in units.items() if parameters}


def padded_bytes(parameters: Iterable[nn.Parameter], shards: int, dtype: torch.dtype) -> int:
    """Size of a unit: its parameters in a row, each aligned, divisible by the shards.

    Args:
        parameters: Of the unit.
        shards: Number of shards.
        dtype: Type of what is exchanged.
    """
    aligned, total = _ALIGNMENT // dtype.itemsize, 0
    for parameter in parameters:
        total += -total % aligned + parameter.numel()
    return (total + -total % shards) * dtype.itemsize


def sharded(
    trace: StepTrace, classes: Collection[str], sharding: Sharding, passes: int = 1, images: float = 1
) -> list[Exchange]:
    """All-gathers of the weights, and reduce-scatters of the gradients, by unit.

    Args:
        trace: The step, of one image, with the events of the units.
        classes: Class names of the units.
        sharding: How the weights are spread.
        passes: Forward and backward passes of a step. Each exchanges its gradients: mmengine leaves
            ``no_sync`` before the backward pass, where FullyShardedDataParallel reads it. Defaults
            to 1.
        images: Images of a pass in each process. Defaults to 1.
    """
    step = _ShardedStep(trace, units_of(trace.model, classes, sharding.is_mixed), sharding)
    for number in range(passes):
        step.run_pass(number * trace.operations)
    end = passes * trace.operations
    if sharding.clips:
        what = 'norm of the gradients'
        step.exchanges.append(Exchange(ALL_REDUCE, 4, sharding.shards, end, Waits.AT_ONCE, what))
    return [replace(exchange, at=exchange.at * images) for exchange in step.exchanges]


class _ShardedStep:
    """Follows the events of a step, with the units whose whole weights a process has."""

    def __init__(self, trace: StepTrace, units: dict[str, list[nn.Parameter]], sharding: Sharding) -> None:
        self.trace, self.sharding = trace, sharding
        self.exchanges: list[Exchange] = []
        self.sizes = {
            name: padded_bytes(parameters, sharding.shards.size, self._dtype(name))
            for name, parameters in units.items()
        }
        names = {id(parameter): name for name, parameter in trace.model.named_parameters()}
        self.unit_of = {names[id(one)]: unit for unit, parameters in units.items() for one in parameters}
        self.whole: set[str] = set()

    def run_pass(self, before: float) -> None:
        trained = {event.name for event in self.trace.gradients()}
        missing = {unit: {name for name in trained if self.unit_of[name] == unit} for unit in self.sizes}
        in_backward: set[str] = set()
        if _ROOT in self.sizes:
            self._gather(_ROOT, before)
        for event in self.trace.events:
            at = before + event.at
            if event.kind == GRADIENT:
                unit = self.unit_of[event.name]
                missing[unit].discard(event.name)
                if not missing[unit] and unit != _ROOT:
                    self._end_backward(unit, at)
            elif event.name not in self.sizes:
                continue
            elif event.kind == FORWARD_END:
                # A forward pass within the backward pass recomputes activations.
                if self.sharding.release and event.name not in in_backward:
                    self.whole.discard(event.name)
            elif event.kind in (FORWARD, BACKWARD):
                self._gather(event.name, at)
                in_backward |= {event.name} if event.kind == BACKWARD else set()
        if _ROOT in self.sizes:
            self._end_backward(_ROOT, before + self.trace.operations)

    def _dtype(self, unit: str) -> torch.dtype:
        """FullyShardedDataParallel keeps batch norms in float32."""
        return torch.float32 if is_batch_norm(self.trace.model.get_submodule(unit)) else self.sharding.dtype

    def _gather(self, unit: str, at: float) -> None:
        if unit not in self.whole:
            self.whole.add(unit)
            group = self.sharding.shards
            self.exchanges.append(Exchange(ALL_GATHER, self.sizes[unit], group, at, Waits.PREFETCHED, 'weights'))

    def _end_backward(self, unit: str, at: float) -> None:
        size, shards, copies = self.sizes[unit], self.sharding.shards, self.sharding.copies
        self.exchanges.append(Exchange(REDUCE_SCATTER, size, shards, at))
        if copies:
            self.exchanges.append(Exchange(ALL_REDUCE, size // shards.size, copies, at))
        self.whole.discard(unit)
