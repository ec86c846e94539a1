# Copyright (c) addp_mm contributors. Apache-2.0.
"""Commands as steps: each runs once, logs to a file, and is skipped when the same step was done before."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEARTBEAT = 20.0
TAIL_LINES = 30


class StepFailed(RuntimeError):
    """A command ended with an error, or without what it was to write."""


@dataclass(frozen=True)
class Step:
    """One command of this repository.

    Args:
        name: Short name, also of its log and stamp.
        title: What a reader is told that it does.
        command: Arguments after ``python``, the tool first; paths relative to the repository.
        outputs: Files that exist once it is done.
        inputs: Files that it depends on; configs count with their bases.
        after: Steps that it needs.
        folder: Folder that belongs to this step alone; emptied before it runs.
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
        """The command as a user would type it."""
        return shlex.join(('python', *self.command))


@dataclass(frozen=True)
class Done:
    """How a step went: seconds, peak memory of its process in MiB, and whether it was skipped this time."""

    seconds: float
    peak_mib: float
    skipped: bool


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a config, the hash of all its values with the bases merged in."""
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
    """Runs steps, as many at once as asked for, each with its own log.

    Args:
        work_dir: Logs go to ``logs/`` in it, stamps to ``stamps/``.
        jobs: Commands at once.
        threads: CPU threads of each command; an OMP_NUM_THREADS that is set already is kept.
    """

    def __init__(self, work_dir: Path, jobs: int = 1, threads: int = 1) -> None:
        self.work_dir, self.jobs = Path(work_dir), jobs
        self.environment = {
            'OMP_NUM_THREADS': str(threads),
            **os.environ,
            'PYTHONUNBUFFERED': '1',
            'PYTHONWARNINGS': 'ignore',
        }
        self._running: dict[str, subprocess.Popen] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def log_path(self, step: Step) -> Path:
        return ROOT / self.work_dir / 'logs' / f'{step.name}.log'

    def _stamp_path(self, step: Step) -> Path:
        return ROOT / self.work_dir / 'stamps' / f'{step.name}.json'

    def run(self, steps: Sequence[Step]) -> dict[str, Done]:
        """Run all steps, in order where they depend on each other.

        Raises:
            StepFailed: A step failed. Its log and the command to type again were printed; what is
                done stays done.
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
        """What a step is made from: its command, and the files that it and the steps before it hand to it."""
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
        head = f'[{number:2d}/{self._total} {clock(time.monotonic() - self._began):>5}]'
        key = self._key(step)
        before = self._finished_before(step, key)
        if before:
            self._say(f'{head} {step.title}: done before, {clock(before.seconds)}\n$ {step.shown}')
            return before
        self._say(f'{head} {step.title}\n$ {step.shown}')
        self._stamp_path(step).unlink(missing_ok=True)
        if step.folder is not None:
            shutil.rmtree(ROOT / step.folder, ignore_errors=True)
        status, seconds, peak = self._execute(step, number)
        missing = [str(path) for path in step.outputs if not (ROOT / path).exists()]
        if status or missing:
            reason = f'exit status {status}' if status else f'it did not write {", ".join(missing)}'
            raise StepFailed(self._failure(step, reason))
        stamp = dict(key=key, command=step.shown, seconds=seconds, peak_mib=peak)
        self._stamp_path(step).parent.mkdir(parents=True, exist_ok=True)
        self._stamp_path(step).write_text(json.dumps(stamp, indent=2) + '\n')
        elapsed = clock(time.monotonic() - self._began)
        self._say(f'[{number:2d}/{self._total} {elapsed:>5}] {step.title}: done in {clock(seconds)}')
        return Done(seconds, peak, skipped=False)

    def _execute(self, step: Step, number: int) -> tuple[int, float, float]:
        """Run the command; returns exit status, seconds and peak memory in MiB."""
        log = self.log_path(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        began = beat = time.monotonic()
        with log.open('w') as stream:
            with self._lock:
                if self._stopping:
                    raise StepFailed(f'{step.title}: not started, another step failed')
                process = subprocess.Popen(
                    [sys.executable, *step.command],
                    cwd=ROOT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
                self._running[step.name] = process
            # wait4 tells the memory of this one process, which Popen.wait does not.
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            while not pid:
                time.sleep(0.2)
                if time.monotonic() - beat > HEARTBEAT:
                    beat = time.monotonic()
                    self._say(f'[{number:2d}/{self._total} {clock(beat - self._began):>5}]   {_last_line(log)}')
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        with self._lock:
            process.returncode = os.waitstatus_to_exitcode(status)
            del self._running[step.name]
        per_mib = 1024**2 if sys.platform == 'darwin' else 1024
        return process.returncode, time.monotonic() - began, usage.ru_maxrss / per_mib

    def _failure(self, step: Step, reason: str) -> str:
        lines = self.log_path(step).read_text(errors='replace').splitlines()[-TAIL_LINES:]
        tail = '\n'.join(f'  | {line}' for line in lines)
        return (
            f'{step.title}: failed ({reason}). The end of {_from_here(self.log_path(step))}:\n{tail}\n'
            f'To try this step alone:\n$ {step.shown}\n'
            f'To go on from here (steps that are done are not repeated):\n'
            f'$ {shlex.join(("python", *map(_from_here, sys.argv)))}'
        )


def _from_here(path: str | Path) -> str:
    text = str(path)
    return text[len(str(ROOT)) + 1 :] if text.startswith(f'{ROOT}{os.sep}') else text


def _last_line(log: Path, width: int = 110) -> str:
    lines = log.read_text(errors='replace').replace('\r', '\n').split('\n')
    last = next((line.strip() for line in reversed(lines) if line.strip()), 'no output yet')
    return last if len(last) <= width else f'{last[: width - 1]}…'
