# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time of a collective operation on stated bandwidths and latencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from addp_mm.analysis.communication.exchange import ALL_REDUCE, Exchange


@dataclass(frozen=True)
class Links:
    """What connects the processes. The defaults are assumptions, not measurements.

    Args:
        node_rate: Bytes a second that a process sends to another one on its node. Defaults to
            450e9: NVLink of an H100, one direction, by its data sheet.
        network_rate: Bytes a second that a node sends to other nodes, over all its adapters.
            Defaults to 400e9: eight adapters of 400 Gbit/s.
        node_latency: Seconds from a process to another one on its node. Defaults to 2e-6.
        network_latency: Seconds to a process on another node. Defaults to 5e-6.
    """

    node_rate: float = 450e9
    network_rate: float = 400e9
    node_latency: float = 2e-6
    network_latency: float = 5e-6

    def seconds(self, exchange: Exchange) -> float:
        """Time of an exchange that has the links for itself.

        It runs in a ring. An all-reduce runs in a tree if that is faster, which it is for small
        tensors on many nodes: a chain on each node and a binary tree over the nodes, up and down.
        """
        group = exchange.group
        nodes = group.size / group.on_a_node
        rate, latency = self.node_rate, self.node_latency
        if nodes > 1:
            # A ring crosses the network once a node, with the data of one process.
            rate, latency = min(rate, self.network_rate / group.at_once), self.network_latency
        ring = exchange.rounds * latency
        if exchange.kind == ALL_REDUCE:
            up = (group.on_a_node - 1) * self.node_latency + math.ceil(math.log2(nodes)) * self.network_latency
            ring = min(ring, 2 * up)
        return ring + exchange.sent / rate
