# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run commands as steps: each logs to a file, and is skipped if it is already done."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from addp_mm.benchmark.step import Step
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.config.shipped import tool_path
from addp_mm.errors import UserError
from addp_mm.logged_command import last_lines, quoted_end, run_logged
from addp_mm.stop_signals import STOPPED_STATUSES

HEARTBEAT_SECONDS = 20.0
_LINE_WIDTH = 110
_CAUSE_LENGTH = 300
_ERROR_LINE = re.compile(r'(error: |[\w.]*(Error|Exception)\b)')


class StepError(UserError, RuntimeError):
    """A command ended with an error, or did not write its outputs.

    Args:
        message: Everything about it, with the end of the log.
        cause: One line.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Done:
    """Result of a step.

    Args:
        seconds: Duration.
        peak_mib: Peak memory of its process, in MiB.
        skipped: Whether it was already done.
    """

    seconds: float
    peak_mib: float
    skipped: bool


def clock(seconds: float) -> str:
    """``65`` as ``1:05``."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class StepRunner:
    """Runs steps, several at once. Relative paths are those of the current folder.

    Args:
        work_dir: Folder of the logs (``logs/``) and of a stamp for each finished step
            (``stamps/``).
        jobs: Number of commands that run at once. Defaults to 1.
        threads: CPU threads of each command, unless OMP_NUM_THREADS is set. Defaults to 1.
        pass_fds: Open files that the commands inherit. Defaults to (): none.
    """

    def __init__(self, work_dir: Path, jobs: int = 1, threads: int = 1, pass_fds: Sequence[int] = ()) -> None:
        self.work_dir, self.jobs, self._pass_fds = Path(work_dir), jobs, pass_fds
        threads_of_each = os.environ.get('OMP_NUM_THREADS', str(threads))
        self.environment = {'OMP_NUM_THREADS': threads_of_each, 'PYTHONWARNINGS': 'ignore'}
        self._stop = threading.Event()

    def run(self, steps: Sequence[Step], watch: Callable[[Mapping[str, Done]], None] | None = None) -> dict[str, Done]:
        """Run all steps, each after the steps that it needs.

        Args:
            steps: The steps; each after those that it needs.
            watch: Called with the results so far when steps have ended, while the others go on.
                Defaults to None.

        Returns:
            The results by name of the step.

        Raises:
            StepError: A step failed. Steps that were running are run to their end. Finished steps
                are not repeated the next time.
        """
        return {name: future.result() for name, future in self._submit(steps, stop=True, watch=watch).items()}

    def run_all(self, steps: Sequence[Step]) -> dict[str, Done | StepError]:
        """As :meth:`run`, but the other steps go on if a step fails; its result is the error."""
        results: dict[str, Done | StepError] = {}
        for name, future in self._submit(steps, stop=False).items():
            try:
                results[name] = future.result()
            except StepError as error:
                results[name] = error
        return results

    def _submit(
        self, steps: Sequence[Step], stop: bool, watch: Callable[[Mapping[str, Done]], None] | None = None
    ) -> dict[str, Future[Done]]:
        self._began, self._total = time.monotonic(), len(steps)
        self._stop.clear()
        futures: dict[str, Future[Done]] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            for number, step in enumerate(steps, 1):
                needed = [futures[other.name] for other in step.after]
                futures[step.name] = pool.submit(self._run_step, step, number, needed)
            waiting = set(futures.values())
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                errors = [future.exception() for future in ended]
                if stop and any(errors) or any(error and not isinstance(error, StepError) for error in errors):
                    break
                if watch:
                    watch({name: future.result() for name, future in futures.items() if _succeeded(future)})
        except KeyboardInterrupt:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if stop:  # the error comes before the steps that it cancelled
            for future in futures.values():
                if not future.cancelled():
                    future.result()
        return futures

    def _run_step(self, step: Step, number: int, needed: Sequence[Future[Done]]) -> Done:
        # The pool starts steps in order, so the needed steps are running or done.
        for future in needed:
            future.result()
        key, stamp = step.key(), self.work_dir / 'stamps' / f'{step.name}.json'
        before = _finished_before(step, stamp, key)
        if before:
            self._say(number, f'{step.title}: already done, {clock(before.seconds)}\n$ {step.shown}')
            return before
        stamp.unlink(missing_ok=True)
        more = self._prepare(step, key)
        self._say(number, f'{step.title}\n$ {shlex.join(("python", *step.command, *more))}')
        log = self.work_dir / 'logs' / f'{step.name}.log'
        outcome = run_logged(
            [sys.executable, *_script(step.command), *more],
            log,
            self.environment,
            pass_fds=self._pass_fds,
            heartbeat=lambda: self._say(number, f'  {_last_line(log)[:_LINE_WIDTH]}'),
            interval=HEARTBEAT_SECONDS,
            stop=self._stop,
        )
        # Ctrl-C also reaches the command; a scheduler may stop it alone
        if outcome.status and self._stop.is_set() or outcome.status in STOPPED_STATUSES:
            self._stop.set()
            raise KeyboardInterrupt
        missing = [str(path) for path in step.outputs if not path.exists()]
        if outcome.status or missing:
            reason = _reason(outcome.status, log) if outcome.status else f'it did not write {", ".join(missing)}'
            self._say(number, f'{step.title}: failed: {reason}')
            raise StepError(_account(step, log, outcome.status, missing), reason)
        write_json(stamp, dict(key=key, command=step.shown, seconds=outcome.seconds, peak_mib=outcome.peak_mib))
        self._say(number, f'{step.title}: done in {clock(outcome.seconds)}')
        return Done(outcome.seconds, outcome.peak_mib, skipped=False)

    def _prepare(self, step: Step, key: str) -> tuple[str, ...]:
        """Empty the folder of a step, unless it continues; return the options that continue it."""
        begun, log = (self.work_dir / part for part in (f'stamps/{step.name}.begun', f'logs/{step.name}.log'))
        if step.resume is not None and begun.is_file() and begun.read_text() == key:
            return step.resume
        log.unlink(missing_ok=True)
        if step.folder is not None:
            shutil.rmtree(step.folder, ignore_errors=True)
        if step.resume is not None:
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.write_text(key)
        return ()

    def _say(self, number: int, text: str) -> None:
        head = f'[{number:2d}/{self._total} {clock(time.monotonic() - self._began):>5}]'
        # a single write, so that lines of several threads do not mix
        print(f'{head} {text}\n', end='', flush=True)


def _succeeded(future: Future[Done]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _script(command: Sequence[str]) -> list[str]:
    first, *rest = command
    return [tool_path(first) if first.startswith('tools/') else first, *rest]


def _last_line(log: Path) -> str:
    return ''.join(last_lines(log, 1)).strip() or 'no output yet'


def _reason(status: int, log: Path) -> str:
    """The cause of a failure in one line."""
    if status < 0:
        name = signal.Signals(-status).name
        memory = ', probably because the memory was used up' if name == 'SIGKILL' else ''
        return f'the process was ended by {name}{memory}'
    errors = [line for line in last_lines(log, 100) if _ERROR_LINE.match(line)]
    line = (errors or [_last_line(log)])[-1].removeprefix('error: ').strip()
    return line if len(line) <= _CAUSE_LENGTH else f'{line[:_CAUSE_LENGTH]}…'


def _account(step: Step, log: Path, status: int, missing: Sequence[str]) -> str:
    reason = f'exit status {status}' if status else f'it did not write {", ".join(missing)}'
    again = shlex.join(('python', *map(_from_here, sys.argv)))
    return (
        f'{step.title}: failed ({reason}). The end of {_from_here(log)}:\n{quoted_end(log)}\n'
        f'To run this step alone:\n$ {step.shown}\n'
        f'To continue at this step (finished steps are not repeated):\n$ {again}'
    )


def _finished_before(step: Step, stamp: Path, key: str) -> Done | None:
    try:
        found = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if found.get('key') != key or not all(path.exists() for path in step.outputs):
        return None
    return Done(found['seconds'], found['peak_mib'], skipped=True)


def _from_here(path: str | Path) -> str:
    """A path relative to the current folder, if it is inside."""
    return str(path).removeprefix(f'{os.getcwd()}{os.sep}')
