# Copyright (c) addp_mm contributors. Apache-2.0.
"""Replayed trajectories that stay in memory for the next epoch."""

from __future__ import annotations

from collections.abc import Callable

from addp_mm.alignment.replayed_batch import ReplayedBatch, join_batches
from addp_mm.generation.trajectories.trajectories import Trajectories


class ReplayCache:
    """Keeps replayed trajectories on the CPU.

    Each trajectory is replayed alone, so that its numbers do not depend on the others of its batch:
    a resumed training, whose cache is empty, computes the same ones.

    Args:
        replay: Replays trajectories on the device of the generator.
        max_bytes: Memory of the cache. When it is full, further trajectories are not kept.
    """

    def __init__(self, replay: Callable[[Trajectories], ReplayedBatch], max_bytes: int) -> None:
        self._replay, self._free = replay, max_bytes
        self._kept: dict[bytes, ReplayedBatch] = {}

    def __call__(self, trajectories: Trajectories) -> ReplayedBatch:
        """Replay a batch, on the device of the trajectories."""
        device = trajectories.ids.device
        return join_batches([self._one(trajectories[[row]]).to(device) for row in range(len(trajectories))])

    def _one(self, trajectory: Trajectories) -> ReplayedBatch:
        own = trajectory.to('cpu')
        key = b''.join(part.numpy().tobytes() for part in (own.ids, own.kept_at, own.labels))
        if key not in self._kept:
            batch = self._replay(trajectory)
            if batch.num_bytes > self._free:
                return batch
            self._free -= batch.num_bytes
            self._kept[key] = batch.to('cpu')
        return self._kept[key]
