# Copyright (c) addp_mm contributors. Apache-2.0.
"""Commands as steps: each logs to a file, and is skipped if the same step was done before."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.own_data.commands import LoggedProcess, Outcome, last_lines, quoted_end

ROOT = Path(__file__).resolve().parents[2]
HEARTBEAT_SECONDS = 20.0
_LINE_WIDTH = 110


class StepError(RuntimeError):
    """A command ended with an error, or did not write its outputs."""


@dataclass(frozen=True)
class Step:
    """One command of this repository.

    Args:
        name: Short name, also of its log and stamp.
        title: Describes the step to the user.
        command: Arguments after ``python``, the tool first. Paths are relative to the repository.
        outputs: Files that exist once the step is done.
        inputs: Files that it depends on. Defaults to none.
        after: Steps that it needs. Defaults to none.
        folder: Folder of this step alone, emptied before it runs. Defaults to None.
    """

    name: str
    title: str
    command: tuple[str, ...]
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...] = ()
    after: tuple[Step, ...] = ()
    folder: Path | None = None

    @property
    def shown(self) -> str:
        """The command as a user types it."""
        return shlex.join(('python', *self.command))


@dataclass(frozen=True)
class Done:
    """Result of a step.

    Args:
        seconds: Time that it took.
        peak_mib: Peak memory of its process, in MiB.
        skipped: Whether it was done before.
    """

    seconds: float
    peak_mib: float
    skipped: bool


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a config, SHA-256 of its values with the bases merged in."""
    path = ROOT / path
    if path.suffix != '.py' or ROOT / 'configs' not in path.parents:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    from mmengine.config import Config

    values = Config.fromfile(path).to_dict()
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def clock(seconds: float) -> str:
    """``65`` as ``1:05``."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class StepRunner:
    """Runs steps, several at once.

    Args:
        work_dir: Logs go to ``logs/`` in it, stamps of steps that are done to ``stamps/``.
        jobs: Commands at once. Defaults to 1.
        threads: CPU threads of each command, unless OMP_NUM_THREADS is set. Defaults to 1.
    """

    def __init__(self, work_dir: Path, jobs: int = 1, threads: int = 1) -> None:
        self.work_dir, self.jobs = ROOT / work_dir, jobs
        threads_of_each = os.environ.get('OMP_NUM_THREADS', str(threads))
        self.environment = {'OMP_NUM_THREADS': threads_of_each, 'PYTHONWARNINGS': 'ignore'}
        self._running: dict[str, LoggedProcess] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def log_path(self, step: Step) -> Path:
        """The log of a step."""
        return self.work_dir / 'logs' / f'{step.name}.log'

    def _stamp_path(self, step: Step) -> Path:
        return self.work_dir / 'stamps' / f'{step.name}.json'

    def run(self, steps: Sequence[Step]) -> dict[str, Done]:
        """Run all steps, each after the steps that it needs.

        Returns:
            The results by name of the step.

        Raises:
            StepError: A step failed. Steps that are done are not repeated the next time.
        """
        self._began, self._total = time.monotonic(), len(steps)
        numbers = {step.name: number for number, step in enumerate(steps, 1)}
        done: dict[str, Done] = {}
        waiting, futures = list(steps), {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or futures:
                    ready = [step for step in waiting if all(needed.name in done for needed in step.after)]
                    for step in ready[: self.jobs - len(futures)]:
                        waiting.remove(step)
                        futures[pool.submit(self._run_step, step, numbers[step.name])] = step
                    finished, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in finished:
                        done[futures.pop(future).name] = future.result()
            except BaseException:
                self._stop()
                raise
        return done

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._running.values():
                process.terminate()

    def _say(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

    def _key(self, step: Step) -> str:
        """Fingerprint of the command and of the files that the step depends on."""
        files = {*step.inputs, *(path for needed in step.after for path in needed.outputs)}
        parts = [step.shown, *sorted(f'{path} {fingerprint(path)}' for path in files)]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()

    def _finished_before(self, step: Step, key: str) -> Done | None:
        try:
            stamp = json.loads(self._stamp_path(step).read_text())
        except (FileNotFoundError, ValueError):
            return None
        if stamp.get('key') != key or not all((ROOT / path).exists() for path in step.outputs):
            return None
        return Done(stamp['seconds'], stamp['peak_mib'], skipped=True)

    def _run_step(self, step: Step, number: int) -> Done:
        key = self._key(step)
        before = self._finished_before(step, key)
        if before:
            self._say(f'{self._head(number)} {step.title}: done before, {clock(before.seconds)}\n$ {step.shown}')
            return before
        self._say(f'{self._head(number)} {step.title}\n$ {step.shown}')
        self._stamp_path(step).unlink(missing_ok=True)
        if step.folder is not None:
            shutil.rmtree(ROOT / step.folder, ignore_errors=True)
        outcome = self._execute(step, number)
        missing = [str(path) for path in step.outputs if not (ROOT / path).exists()]
        if outcome.status or missing:
            reason = f'exit status {outcome.status}' if outcome.status else f'it did not write {", ".join(missing)}'
            raise StepError(self._failure(step, reason))
        stamp = dict(key=key, command=step.shown, seconds=outcome.seconds, peak_mib=outcome.peak_mib)
        write_json(self._stamp_path(step), stamp)
        self._say(f'{self._head(number)} {step.title}: done in {clock(outcome.seconds)}')
        return Done(outcome.seconds, outcome.peak_mib, skipped=False)

    def _head(self, number: int) -> str:
        return f'[{number:2d}/{self._total} {clock(time.monotonic() - self._began):>5}]'

    def _execute(self, step: Step, number: int) -> Outcome:
        log = self.log_path(step)
        log.unlink(missing_ok=True)
        with self._lock:
            if self._stopping:
                raise StepError(f'{step.title}: not started, because another step failed')
            process = LoggedProcess([sys.executable, *step.command], log, self.environment, ROOT)
            self._running[step.name] = process

        def heartbeat() -> None:
            line = ''.join(last_lines(log, 1)).strip() or 'no output yet'
            self._say(f'{self._head(number)}   {line[:_LINE_WIDTH]}')

        outcome = process.wait(heartbeat, HEARTBEAT_SECONDS)
        with self._lock:
            del self._running[step.name]
        return outcome

    def _failure(self, step: Step, reason: str) -> str:
        return (
            f'{step.title}: failed ({reason}). The end of {_from_here(self.log_path(step))}:\n'
            f'{quoted_end(self.log_path(step))}\n'
            f'To run this step alone:\n$ {step.shown}\n'
            f'To continue from here (steps that are done are not repeated):\n'
            f'$ {shlex.join(("python", *map(_from_here, sys.argv)))}'
        )


def _from_here(path: str | Path) -> str:
    """A path relative to the repository, if it is inside."""
    return str(path).removeprefix(f'{ROOT}{os.sep}')
