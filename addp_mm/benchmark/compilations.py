# Copyright (c) addp_mm contributors. Apache-2.0.
"""What ``torch.compile`` compiled: graphs, graph breaks and recompilations with their reasons."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

_FUNCTION = re.compile(r'<function ([\w.]+)')
_GUARD = re.compile(r'^- \d+/\d+: (.*?)\s*(?:# .*)?$')
_RECOMPILED = re.compile(r'Recompiling function (\S+) in (\S+)')


class Counts(NamedTuple):
    """What was compiled so far.

    Attributes:
        graphs: Number of compiled graphs, those of recompilations included.
        recompilations: Number of functions that were compiled again for other arguments.
    """

    graphs: int
    recompilations: int

    def since(self, before: Counts) -> Counts:
        """What was compiled after ``before``."""
        return Counts(self.graphs - before.graphs, self.recompilations - before.recompilations)


class Compilations(logging.Handler):
    """Counts compilations while :func:`recorded_compilations` is active.

    Attributes:
        reasons: Function, file and failed guard of each recompilation, in their order.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a recompilation that PyTorch logs."""
        lines = [line.strip() for line in record.getMessage().splitlines()]
        found = _RECOMPILED.search(lines[0])
        guards = [match[1] for match in map(_GUARD.match, lines) if match]
        where = f'{found[1]} ({found[2]})' if found else lines[0]
        self.reasons.append(f'{where}: {guards[0] if guards else "unknown reason"}')

    @property
    def counts(self) -> Counts:
        """What was compiled so far."""
        return Counts(_counters()['stats']['unique_graphs'], len(self.reasons))

    @property
    def graph_breaks(self) -> Counter[str]:
        """Number of graph breaks by their reason, with the name of an uncompiled function."""
        breaks: Counter[str] = Counter()
        for reason, number in _counters()['graph_break'].items():
            function = _FUNCTION.search(reason)
            breaks[reason.splitlines()[0].strip() + (f': {function[1]}' if function else '')] += number
        return breaks


@contextmanager
def recorded_compilations() -> Iterator[Compilations]:
    """Forget all compiled code, and count what is compiled inside.

    Afterwards, PyTorch logs what it logs by default.

    Example:
        >>> with recorded_compilations() as compilations:  # doctest: +SKIP
        ...     torch.compile(function)(torch.rand(2))
        >>> compilations.counts  # doctest: +SKIP
        Counts(graphs=1, recompilations=0)
    """
    torch._dynamo.reset()  # noqa: SLF001  # torch.compiler.reset keeps the counters
    _counters().clear()
    torch._logging.set_logs(recompiles=True)  # noqa: SLF001  # the documented way to see recompilations
    logger = torch._logging.getArtifactLogger('torch._dynamo.guards', 'recompiles')  # noqa: SLF001
    printing, propagate, compilations = list(logger.handlers), logger.propagate, Compilations()
    logger.handlers[:], logger.propagate = [compilations], False
    try:
        yield compilations
    finally:
        logger.handlers[:], logger.propagate = printing, propagate
        torch._logging.set_logs()  # noqa: SLF001


def _counters() -> dict[str, Counter]:
    from torch._dynamo.utils import counters

    return counters
