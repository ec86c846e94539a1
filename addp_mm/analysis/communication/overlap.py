# Copyright (c) addp_mm contributors. Apache-2.0.
"""How much of the exchange of a training step hides behind its computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from addp_mm.analysis.communication.exchange import Exchange, Waits
from addp_mm.analysis.communication.links import Links


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step.

    Args:
        computing: Without any exchange.
        exchanging: Sum of the exchanges, each with the links for itself.
        total: Of the step.
    """

    computing: float
    exchanging: float
    total: float

    @property
    def exposed(self) -> float:
        """Seconds in which the computation waits."""
        return self.total - self.computing

    @property
    def hidden(self) -> float:
        """Share of the exchange that runs while the process computes."""
        return 1 - self.exposed / self.exchanging if self.exchanging else 1.0


def step_time(exchanges: Sequence[Exchange], operations: float, rate: float, links: Links) -> StepTime:
    """Play a step: one exchange at a time, in order, next to the computation.

    Args:
        exchanges: Those of the step, in the order in which a process reaches them.
        operations: Additions and multiplications of the step in each process.
        rate: How many of them a process does in a second.
        links: What connects the processes.
    """
    seconds = {id(exchange): links.seconds(exchange) for exchange in exchanges}
    prefetched = iter([exchange for exchange in exchanges if exchange.waits is Waits.PREFETCHED])
    free = clock = done = 0.0

    def run(exchange: Exchange | None) -> float:
        nonlocal free
        if exchange is not None:
            free = max(free, clock) + seconds[id(exchange)]
        return free

    arrived = run(next(prefetched, None))
    for exchange in exchanges:
        clock, done = clock + (exchange.at - done) / rate, exchange.at
        if exchange.waits is Waits.PREFETCHED:
            clock = max(clock, arrived)
            arrived = run(next(prefetched, None))
        elif exchange.waits is Waits.AT_ONCE:
            clock = run(exchange)
        else:
            run(exchange)
    clock += (operations - done) / rate
    return StepTime(operations / rate, sum(seconds.values()), max(clock, free))
