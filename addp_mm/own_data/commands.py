# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run commands of this repository as processes, with their output in a log file."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from addp_mm.config.shipped import shipped_root
from addp_mm.errors import UserError

TOOLS = shipped_root() / 'tools'
Progress = Callable[[], 'str | None']
Execute = Callable[[Sequence[str], Path, Progress], int]
_POLL_SECONDS = 0.2
_KIB_PER_MIB = 1024


class CommandError(UserError, RuntimeError):
    """A command ended with an error."""


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


def tool(name: str, *arguments: object) -> list[str]:
    """``python tools/NAME …`` as a list."""
    return [sys.executable, str(TOOLS / name), *map(str, arguments)]


def shown(command: Sequence[str]) -> str:
    """A command as you type it in the root of the repository."""
    words = ['python' if word == sys.executable else word for word in command]
    return shlex.join(word.removeprefix(f'{TOOLS.parent}{os.sep}') for word in words)


class Commands:
    """Runs commands one after the other, and keeps a list of them.

    Args:
        execute: Function that replaces :func:`run_logged`. It is called with the command, the log
            and the progress function, and returns the exit status. Defaults to None.
        pass_fds: Open files that the commands inherit. Defaults to (): none.
        say: Called with each line of output. Defaults to print.
    """

    def __init__(
        self, execute: Execute | None = None, pass_fds: Sequence[int] = (), say: Callable[[str], None] = print
    ) -> None:
        self._execute, self._pass_fds, self._say = execute or self._run, pass_fds, say
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str], log: Path, progress: Progress = lambda: None) -> None:
        """Run a command to its end.

        Args:
            command: Program and arguments.
            log: File to which the output is appended.
            progress: Called every half minute; returns a line of output, or None. Defaults to a
                function that returns None.

        Raises:
            CommandError: The exit status is not 0.
        """
        self._say(f'$ {shown(command)}')
        self.ran.append(shown(command))
        status = self._execute(command, log, progress)
        if status:
            raise CommandError(
                f'this command ended with status {status}:\n$ {shown(command)}\nThe end of {log}:\n{quoted_end(log)}\n'
                'Fix the cause, then run pretrain_from_folder.py with the same options: it continues at this command'
            )

    def _run(self, command: Sequence[str], log: Path, progress: Progress) -> int:
        def heartbeat() -> None:
            if line := progress():
                self._say(line)

        environment = dict(PYTHON=sys.executable)
        return run_logged(command, log, environment, pass_fds=self._pass_fds, heartbeat=heartbeat).status
