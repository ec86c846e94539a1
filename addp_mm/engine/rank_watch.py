# Copyright (c) addp_mm contributors. Apache-2.0.
"""End a process in one line if another process of its training is gone."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator

from mmengine import dist

from addp_mm.engine.heartbeats import ENDED, FAILED, LOST, RUNS, Heartbeats, Peer
from addp_mm.engine.process_group import end_process, hosts_store, is_group_error
from addp_mm.errors import LOST_STATUS, first_few

_BEAT = 1.0  # seconds
_SILENT = 4  # beats after which a process is called gone, once an exchange with it has failed
_GRACE = 30.0  # seconds in which a process finishes what it does, a save for example, after another one has failed
_SUSPENDED = 5.0  # seconds by which a beat is late if this process itself was stopped
_TIMED_OUT = re.compile(r'[Tt]imed out|[Tt]imeout')


class RankWatch:
    """Watches the other processes of a training by their heartbeats.

    gloo raises an error if another process is gone. NCCL may wait, so a thread ends this process
    if another one is silent for the time-out, or if it has failed and this one waits for it.

    Args:
        timeout: Seconds without an answer after which a process counts as gone.
    """

    def __init__(self, timeout: float) -> None:
        self.runner = None
        self.rank = dist.get_rank()
        self.timeout = timeout
        beat = min(_BEAT, timeout / 40)
        self.beats = Heartbeats(self.rank, dist.get_world_size(), beat, self.iteration)
        self._since = time.monotonic()  # from here on the others' silence is counted
        self._failed_at: float | None = None
        self._reporting, self._closed = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, name='rank watch', daemon=True).start()

    def iteration(self) -> int:
        """The training iteration of this process, from 1; 0 before the first."""
        training = getattr(self.runner, '_train_loop', None)
        return self.runner.iter + 1 if hasattr(training, 'iter') else 0  # type: ignore[attr-defined]

    def close(self, state: str, error: str = '') -> None:
        """Tell the others how this process ends; the one with the store waits until they know it.

        Args:
            state: One of the states of a :class:`Peer`.
            error: The error by which it ends. Defaults to ''.
        """
        self._closed.set()
        self.beats.tell(state, ' '.join(error.split())[:300])
        end = time.monotonic() + self.beats.until_read
        while hosts_store(self.rank) and time.monotonic() < end:
            if all(peer.state == ENDED for peer in self.beats.peers.values()):
                return
            time.sleep(self.beats.beat / 4)

    def explain(self, error: BaseException) -> str | None:
        """The line about the processes that are gone after an exchange has failed.

        Args:
            error: The error of the exchange.

        Returns:
            The line; None if all other processes run, so that the error has another cause.
        """
        self.beats.tell(LOST)
        end = time.monotonic() + 2 * _SILENT * self.beats.beat
        while time.monotonic() < end and not any(peer.state == FAILED for peer in self.beats.peers.values()):
            silent = self._silent(_SILENT * self.beats.beat)
            if all(peer.state != RUNS or peer in silent for peer in self.beats.peers.values()):
                break
            time.sleep(self.beats.beat / 4)
        return self._line(self._silent(_SILENT * self.beats.beat), bool(_TIMED_OUT.search(str(error))))

    def end(self, line: str) -> None:
        """Print the line, and end this process.

        Args:
            line: What has happened.
        """
        self._reporting.acquire()  # never released: the other thread must not print as well
        text = '; '.join(filter(None, [line, f'rank {self.rank} ends in iteration {self.iteration()}', _remedy]))
        print(f'error: {text}', file=sys.stderr, flush=True)
        self.close(LOST)
        end_process(LOST_STATUS)

    def _silent(self, seconds: float) -> list[Peer]:
        """Processes that run and have sent nothing for some seconds."""
        now, peers = time.monotonic(), self.beats.peers
        if now - max(self.beats.store_answered, self._since) > seconds:
            host = peers.get(0)  # what the others do cannot be known
            return [host] if host and host.state == RUNS and hosts_store(0) else []
        return [
            peer for peer in peers.values() if peer.state == RUNS and now - max(peer.changed, self._since) > seconds
        ]

    def _line(self, silent: list[Peer], timed_out: bool = False) -> str | None:
        peers = self.beats.peers.values()
        failed = [peer for peer in peers if peer.state == FAILED]
        if failed:
            return first_few((f'{_place(peer)} failed: {peer.error}' for peer in failed), 2, '; ')
        if silent:
            names = first_few(map(_place, silent), 8)
            return f'{names} {"is" if len(silent) == 1 else "are"} gone: killed, stopped, or the machine is down'
        if self.beats.store_failed and not hosts_store(0):
            return f'the launcher on {os.environ["MASTER_ADDR"]} is gone'
        if timed_out:
            return (
                f'the processes waited {self.timeout:g} s for each other, and all of them run '
                f'({first_few(map(_place, peers), 8)}). If one of them needs more time, for an evaluation for '
                'example, raise env_cfg.dist_cfg.timeout'
            )
        return None

    def _watch(self) -> None:
        last = time.monotonic()
        limit = self.timeout - 2 * self.beats.beat  # before the watchdog of NCCL ends the process with SIGABRT
        while not self._closed.wait(self.beats.beat):
            now = time.monotonic()
            if now - last > self.beats.beat + _SUSPENDED:
                self._since = now
            last = now
            silent = self._silent(limit)
            left = [peer for peer in self.beats.peers.values() if peer.state in (FAILED, LOST)]
            self._failed_at = self._failed_at or (now if left else None)
            if silent or self._failed_at and now - self._failed_at > _GRACE:
                line = self._line(silent or self._silent(_SILENT * self.beats.beat))
                self.end(line or f'ended after an error of the connection: {first_few(map(_place, left), 8)}')


def _place(peer: Peer) -> str:
    host = f' on {peer.host}' if peer.host else ''
    reached = f' (last heard of in iteration {peer.iteration})' if peer.iteration else ''
    return f'rank {peer.rank}{host}{reached}'


_current: RankWatch | None = None
_remedy = ''


def start_watch(timeout: float) -> RankWatch | None:
    """Watch the other processes of the group from now on.

    Args:
        timeout: See :class:`RankWatch`.

    Returns:
        The watch; None in a single process.
    """
    global _current
    if _current is None and dist.get_world_size() > 1 and 'MASTER_ADDR' in os.environ:
        _current = RankWatch(timeout)
    return _current


@contextlib.contextmanager
def watched_ranks(remedy: str = '') -> Iterator[None]:
    """End this process in one line if an exchange fails because another process is gone.

    With several processes, an own error is printed and sent to the others, which end with it. No
    process waits for another one at its end. A single process is not changed.

    Args:
        remedy: What to do when a process is gone. Defaults to ''.
    """
    global _current, _remedy
    _remedy = remedy
    try:
        yield
    except BaseException as error:
        if _current is None:
            raise
        _leave(_current, error)
    if _current is not None:
        _current.close(ENDED)
        _current = None


def _leave(watch: RankWatch, error: BaseException) -> None:
    """Print an error and end the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher sends it as soon as one process has failed
    line = watch.explain(error) if is_group_error(error) else None
    if line:
        watch.end(line)
    text, status = _printed(error)
    watch.close(FAILED if text else ENDED, text)
    end_process(status)


def _printed(error: BaseException) -> tuple[str, int]:
    """Print an error as Python does; return its text, '' if it is none, and the exit status."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return f'{type(error).__name__}: {error}', 1
    if isinstance(error.code, str):
        print(error.code, file=sys.stderr)
        return error.code.removeprefix('error: '), 1
    return '', error.code or 0
