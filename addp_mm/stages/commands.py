# Copyright (c) addp_mm contributors. Apache-2.0.
"""The commands of a pipeline: how they are written, run one after the other, and shown."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from addp_mm.config.shipped import shipped_root
from addp_mm.errors import UserError
from addp_mm.logged_command import quoted_end, run_logged
from addp_mm.stop_signals import STOPPED, STOPPED_STATUSES

TOOLS = shipped_root() / 'tools'
Progress = Callable[[], 'str | None']
Execute = Callable[[Sequence[str], Path, Progress], int]


class CommandError(UserError, RuntimeError):
    """A command ended with an error."""


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
        execute: Function that replaces :func:`~addp_mm.logged_command.run_logged`. It is called
            with the command, the log and the progress function, and returns the exit status.
            Defaults to None.
        pass_fds: Open files that the commands inherit. Defaults to (): none.
        say: Called with each line of output. Defaults to print.
        pipeline: Name of the tool that runs the commands, for errors. Defaults to 'the tool'.
    """

    def __init__(
        self,
        execute: Execute | None = None,
        pass_fds: Sequence[int] = (),
        say: Callable[[str], None] = print,
        pipeline: str = 'the tool',
    ) -> None:
        self._execute, self._pass_fds, self._say, self._pipeline = execute or self._run, pass_fds, say, pipeline
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
            KeyboardInterrupt: A signal has stopped the command; it has not failed.
        """
        self._say(f'$ {shown(command)}')
        self.ran.append(shown(command))
        status = self._execute(command, log, progress)
        if status in STOPPED_STATUSES:
            raise KeyboardInterrupt(signal.SIGTERM if status == STOPPED else status - 128)
        if status:
            raise CommandError(
                f'this command ended with status {status}:\n$ {shown(command)}\nThe end of {log}:\n{quoted_end(log)}\n'
                f'Fix the cause, then run {self._pipeline} with the same options, without --restart-from: it '
                'continues at this command'
            )

    def _run(self, command: Sequence[str], log: Path, progress: Progress) -> int:
        def heartbeat() -> None:
            if line := progress():
                self._say(line)

        environment = dict(PYTHON=sys.executable)
        return run_logged(command, log, environment, pass_fds=self._pass_fds, heartbeat=heartbeat).status
