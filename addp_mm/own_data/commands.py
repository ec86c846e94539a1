# Copyright (c) addp_mm contributors. Apache-2.0.
"""Commands of this repository, run one after the other with their output in a log."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from addp_mm.config.shipped import shipped_root
from addp_mm.errors import UserError
from addp_mm.own_data.work_dir import Lock

TOOLS = shipped_root() / 'tools'
HEARTBEAT = 30.0
_POLL = 0.2
_TAIL = 25


class CommandFailed(UserError, RuntimeError):
    """A command ended with an error; its log was quoted."""


def tool(name: str, *arguments) -> list[str]:
    """``python tools/<name> …`` as a list."""
    return [sys.executable, str(TOOLS / name), *map(str, arguments)]


def shown(command: Sequence[str]) -> str:
    """A command as one types it."""
    words = ['python' if word == sys.executable else word for word in command]
    return shlex.join(
        os.path.relpath(word, TOOLS.parent) if word.startswith(f'{TOOLS}{os.sep}') else word for word in words
    )


class Commands:
    """Runs commands as processes.

    Args:
        held: A lock that the processes hold as well, so that one that outlives this process is
            noticed.
        say: Called with lines for the user.
    """

    def __init__(self, held: Lock | None = None, say: Callable[[str], None] = print) -> None:
        self.held, self.say = held, say
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str], log: Path, progress: Callable[[], str | None] = lambda: None) -> None:
        """Run to the end.

        Args:
            command: Program and arguments.
            log: File to which the output is appended.
            progress: Called every half minute for a line on how far it is.

        Raises:
            CommandFailed: It ended with another status than 0.
        """
        self.say(f'$ {shown(command)}')
        self.ran.append(shown(command))
        log.parent.mkdir(parents=True, exist_ok=True)
        status = self.execute(command, log, progress)
        if status:
            tail = '\n'.join(f'  | {line}' for line in _lines(log)[-_TAIL:])
            raise CommandFailed(
                f'this command ended with status {status}:\n$ {shown(command)}\nThe end of {log}:\n'
                f'{tail}\nThe same pretrain_from_folder.py goes on from here once the cause is mended'
            )

    def execute(self, command: Sequence[str], log: Path, progress: Callable[[], str | None]) -> int:
        """Start, wait, tell the progress; returns the exit status."""
        environment = {**os.environ, 'PYTHONUNBUFFERED': '1', 'PYTHON': sys.executable}
        with log.open('ab') as stream:
            process = subprocess.Popen(
                list(command),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[self.held.fileno()] if self.held else [],
            )
        if self.held:
            self.held.note(process.pid)
        beat = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(_POLL)
                if time.monotonic() - beat >= HEARTBEAT:
                    beat, line = time.monotonic(), progress()
                    if line:
                        self.say(line)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        return process.returncode


def _lines(log: Path) -> list[str]:
    text = log.read_text(errors='replace') if log.is_file() else ''
    return [line for line in text.replace('\r', '\n').split('\n') if line.strip()]
