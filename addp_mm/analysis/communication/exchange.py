# Copyright (c) addp_mm contributors. Apache-2.0.
"""A collective operation of a training step, and the bytes that a process sends for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER = 'all-reduce', 'all-gather', 'reduce-scatter'


class Waits(Enum):
    """When the computation waits for an exchange."""

    NOT = 'at the end of the step'
    PREFETCHED = 'before it goes on; the exchange starts when the one before it is there'
    AT_ONCE = 'before it goes on; the exchange starts then'


@dataclass(frozen=True)
class Group:
    """Processes that exchange something.

    Args:
        size: Number of processes.
        on_a_node: How many of them are on the same node.
        at_once: Number of such groups that share the network of a node and exchange something at
            the same time. Defaults to 1.
    """

    size: int
    on_a_node: int
    at_once: int = 1

    @classmethod
    def of_all(cls, processes: int, per_node: int) -> Group:
        """All processes of a training.

        Args:
            processes: Their number.
            per_node: Largest number of processes of a node.
        """
        return cls(processes, min(processes, per_node))


@dataclass(frozen=True)
class Exchange:
    """A collective operation.

    Args:
        kind: 'all-reduce', 'all-gather' or 'reduce-scatter'.
        num_bytes: Size of the whole tensor: what a process has after an all-gather, or before a
            reduce-scatter.
        group: The processes.
        at: Operations of the step that a process has done when it reaches this exchange.
        waits: When the computation waits for it. Defaults to ``Waits.NOT``.
        what: What is exchanged. Defaults to 'gradients'.
    """

    kind: str
    num_bytes: int
    group: Group
    at: float = 0.0
    waits: Waits = Waits.NOT
    what: str = 'gradients'

    @property
    def rounds(self) -> int:
        """Times that each process sends a part to its neighbour in a ring."""
        return (2 if self.kind == ALL_REDUCE else 1) * (self.group.size - 1)

    @property
    def sent(self) -> float:
        """Bytes that each process sends in a ring; it receives as many."""
        return self.rounds / self.group.size * self.num_bytes
