# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a command with its output in a log file, and read the end of the log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.2
_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Outcome:
    """Result of a process.

    Args:
        status: Exit status; negative if a signal ended it.
        seconds: Wall time.
        peak_mib: Peak memory of the process without its children, in MiB.
    """

    status: int
    seconds: float
    peak_mib: float


def run_logged(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    heartbeat: Callable[[], None] | None = None,
    interval: float = 30.0,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run a command with its output in a log. An interruption also ends the command.

    Args:
        command: Program and arguments.
        log: File to which the output is appended. Its folder is created.
        environment: Variables to set in addition to those of this process. Defaults to None.
        cwd: Folder to run in. Defaults to None: the current folder.
        pass_fds: Open files that the process inherits. Defaults to (): none.
        heartbeat: Called every ``interval`` seconds. Defaults to None.
        interval: In seconds. Defaults to 30.
        stop: When it is set, the command is ended. The thread that runs a command gets no signals.
            Defaults to None.

    Raises:
        KeyboardInterrupt: ``stop`` was set before the command has ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = beat = time.monotonic()
    with log.open('ab') as stream:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})},
            pass_fds=pass_fds,
        )
    try:
        # Unlike Popen.wait, wait4 reports the memory of the process.
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            time.sleep(_POLL_SECONDS)
            if stop and stop.is_set():
                raise KeyboardInterrupt
            if heartbeat and time.monotonic() - beat >= interval:
                beat = time.monotonic()
                heartbeat()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    # macOS counts bytes, Linux counts KiB.
    per_mib = _KIB_PER_MIB * (_KIB_PER_MIB if sys.platform == 'darwin' else 1)
    return Outcome(process.returncode, time.monotonic() - began, usage.ru_maxrss / per_mib)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty; an empty list if there is no log."""
    text = log.read_text(errors='replace') if log.is_file() else ''
    return [line for line in text.replace('\r', '\n').split('\n') if line.strip()][-count:]


def quoted_end(log: Path, count: int = 25) -> str:
    """The last lines of a log, to quote in an error message."""
    return '\n'.join(f'  | {line}' for line in last_lines(log, count))
