# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tables of what the processes exchange, and of the time of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.analysis.communication.exchange import Exchange
from addp_mm.analysis.communication.links import Links
from addp_mm.analysis.communication.overlap import StepTime, step_time
from addp_mm.analysis.communication.strategies import Comparison, Layout

Counted = Mapping[str, Mapping[int, Sequence[Exchange]]]  # by strategy and number of processes
Times = Mapping[str, Mapping[int, StepTime]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> dict[str, Any]:
    """A table as it is written to a JSON file."""
    return dict(title=title, header=list(header), rows=[list(row) for row in rows])


def step_table(counted: Counted, processes: int) -> dict[str, Any]:
    """What is exchanged in a step of some number of processes: operations, and whole tensors."""
    rows = []
    for strategy, found in counted.items():
        groups: dict[tuple[str, str], list[Exchange]] = {}
        for exchange in found[processes]:
            groups.setdefault((exchange.what, exchange.kind), []).append(exchange)
        for (what, kind), exchanges in groups.items():
            whole, sent = sum(one.num_bytes for one in exchanges), sum(one.sent for one in exchanges)
            rows.append([f'{strategy}: {kind} of {what}', str(len(exchanges)), megabytes(whole), megabytes(sent)])
    header = ('exchange', 'operations', 'whole tensors, MB', 'each process sends, MB')
    return table(header, rows, f'A step of {processes} processes')


def bytes_tables(counted: Counted, layouts: Sequence[Layout]) -> list[dict[str, Any]]:
    """What each process sends in a step, and each node over the network."""
    header = ('GPUs', 'images of a process', *counted)
    sent, crossing = [], []
    for layout in layouts:
        head = [str(layout.processes), f'{layout.passes} x {layout.images:g}']
        steps = [found[layout.processes] for found in counted.values()]
        sent.append(head + [megabytes(sum(one.sent for one in step)) for step in steps])
        crossing.append(head + [megabytes(sum(network_bytes(one) for one in step)) for step in steps])
    return [
        table(header, sent, 'MB that each process sends in a step, and receives'),
        table(header, crossing, 'MB that each node sends over the network in a step'),
    ]


def network_bytes(exchange: Exchange) -> float:
    """Bytes that a node sends to other nodes: a ring leaves a node once."""
    group = exchange.group
    return group.at_once * exchange.sent if group.size > group.on_a_node else 0.0


def times_of(
    counted: Counted, layouts: Sequence[Layout], operations: float, rate: float, links: Links
) -> dict[str, dict[int, StepTime]]:
    """Times of a step by strategy and number of processes.

    Args:
        counted: The exchanges.
        layouts: How the images are spread, for each number of processes.
        operations: Of one image.
        rate: Operations a second of a process.
        links: What connects the processes.
    """
    return {
        strategy: {
            layout.processes: step_time(
                found[layout.processes], operations * layout.passes * layout.images, rate, links
            )
            for layout in layouts
        }
        for strategy, found in counted.items()
    }


def times_table(times: Times, layouts: Sequence[Layout], title: str) -> dict[str, Any]:
    """Milliseconds of a step, with those of the exchange and the share that is hidden."""
    rows = []
    for layout in layouts:
        steps = [found[layout.processes] for found in times.values()]
        cells = [f'{1e3 * one.total:,.1f} ({1e3 * one.exchanging:,.1f}, {one.hidden:.0%})' for one in steps]
        rows.append([str(layout.processes), f'{1e3 * steps[0].computing:,.1f}', *cells])
    return table(('GPUs', 'computing, ms', *(f'{name}: step, ms (exchange, hidden)' for name in times)), rows, title)


def check_table(comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Counted and seen operations of a step of two processes."""
    rows = []
    for strategy, found in comparisons.items():
        sums = [f'{sum(size for _, size in one):,}' for one in (found.counted, found.seen)]
        counts = [str(len(one)) for one in (found.counted, found.seen)]
        rows.append([strategy, *counts, *sums, 'yes' if found.is_equal else found.difference()])
    header = ('strategy', 'operations counted', 'seen', 'bytes counted', 'seen', 'each size equal')
    return table(header, rows, 'Check: a step of two processes on the CPU')


def megabytes(size: float) -> str:
    """A size in MB (10^6 bytes), with more digits if it is small."""
    return f'{size / 1e6:,.1f}' if size >= 1e5 or not size else f'{size / 1e6:.2g}'
