# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the processes of a training tell each other: that they run, how far, and how they end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch.distributed import Store

from addp_mm.engine.process_group import store_of_attempt

RUNS, FAILED, LOST, ENDED = 'runs', 'failed', 'lost', 'ended'
_CONNECTING = 30.0  # seconds
_PER_BEAT = 100  # processes that are read in each beat, so that a large job does not flood the store


@dataclass
class Peer:
    """What is known about another process.

    Attributes:
        rank: Its rank.
        changed: Time at which its last message was read, in seconds of ``time.monotonic``.
        host: Name of its machine. Defaults to '': it has sent nothing yet.
        iteration: Training iteration in which it was. Defaults to 0.
        state: ``RUNS``, or how it ends: ``FAILED`` by an own error, ``LOST`` because another
            process does not answer, or ``ENDED``. Defaults to ``RUNS``.
        error: The first line of its own error. Defaults to ''.
    """

    rank: int
    changed: float
    host: str = ''
    iteration: int = 0
    state: str = RUNS
    error: str = ''


class Heartbeats:
    """Writes a message of this process into the store of the group in each beat; reads the others'.

    The store is that of the launcher, or of the process with rank 0. A thread does all this: a
    store whose process was stopped does not answer, without a time-out.

    Args:
        rank: Rank of this process.
        world_size: Number of processes.
        beat: Seconds between two messages.
        iteration: Returns the training iteration of this process.
    """

    def __init__(self, rank: int, world_size: int, beat: float, iteration: Callable[[], int]) -> None:
        now = time.monotonic()
        self.peers = {other: Peer(other, now) for other in range(world_size) if other != rank}
        self.store_failed = False
        self.store_answered = now
        self.beat = beat
        self._rank, self._iteration = rank, iteration
        self._state, self._error, self._count = RUNS, '', 0
        self._turns = -(-world_size // _PER_BEAT)
        self._values: dict[int, bytes] = {}
        self._wake, self._sent = threading.Event(), threading.Event()
        threading.Thread(target=self._exchange, name='heartbeats', daemon=True).start()

    def tell(self, state: str, error: str = '') -> None:
        """Send how this process ends; return when it is sent, after some beats at most."""
        self._state, self._error = state, error
        self._sent.clear()
        self._wake.set()
        if not self.store_failed:
            self._sent.wait(4 * self.beat)

    @property
    def until_read(self) -> float:
        """Seconds until all other processes have read what this one has sent."""
        return (self._turns + 1.5) * self.beat

    def _exchange(self) -> None:
        try:
            store = store_of_attempt('heartbeats', _CONNECTING)
            while True:
                self._send(store)
                self._receive(store)
                self._wake.wait(self.beat)
                self._wake.clear()
        except RuntimeError:  # torch's DistError: the process of the store is gone
            self.store_failed = True

    def _send(self, store: Store) -> None:
        state = self._state
        self._count += 1
        message = [self._count, socket.gethostname(), self._iteration(), state, self._error]
        store.set(str(self._rank), json.dumps(message))
        self.store_answered = time.monotonic()
        if state != RUNS:
            self._sent.set()

    def _receive(self, store: Store) -> None:
        in_turn = self._turns if self._state == RUNS else 1
        for peer in self.peers.values():
            if (peer.rank + self._count) % in_turn or not store.check([str(peer.rank)]):
                continue
            value = store.get(str(peer.rank))
            if value != self._values.get(peer.rank):
                self._values[peer.rank] = value
                _, peer.host, peer.iteration, peer.state, peer.error = json.loads(value)
                peer.changed = time.monotonic()
        self.store_answered = time.monotonic()
