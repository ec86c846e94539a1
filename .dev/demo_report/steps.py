# Copyright (c) addp_mm contributors. Apache-2.0.
"""Commands as steps: each logs to a file, and is skipped if it is already done."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.own_data.commands import last_lines, quoted_end, run_logged

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
        outputs: Files that the step writes.
        inputs: Files on which it depends. Defaults to (): none.
        after: Steps that it needs. Defaults to (): none.
        folder: Folder of this step only, emptied before it runs. Defaults to None.
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
        """The command as you type it."""
        return shlex.join(('python', *self.command))


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


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; for a config, SHA-256 of its values, merged with its bases."""
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
        work_dir: Folder of the logs (``logs/``) and of a stamp for each finished step
            (``stamps/``).
        jobs: Number of commands that run at once. Defaults to 1.
        threads: CPU threads of each command, unless OMP_NUM_THREADS is set. Defaults to 1.
    """

    def __init__(self, work_dir: Path, jobs: int = 1, threads: int = 1) -> None:
        self.work_dir, self.jobs = ROOT / work_dir, jobs
        threads_of_each = os.environ.get('OMP_NUM_THREADS', str(threads))
        self.environment = {'OMP_NUM_THREADS': threads_of_each, 'PYTHONWARNINGS': 'ignore'}

    def run(self, steps: Sequence[Step]) -> dict[str, Done]:
        """Run all steps, each after the steps that it needs.

        Args:
            steps: The steps; each after those that it needs.

        Returns:
            The results by name of the step.

        Raises:
            StepError: A step failed. Steps that were running are run to their end. Finished steps
                are not repeated the next time.
        """
        self._began, self._total = time.monotonic(), len(steps)
        futures: dict[str, Future[Done]] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            for number, step in enumerate(steps, 1):
                needed = [futures[other.name] for other in step.after]
                futures[step.name] = pool.submit(self._run_step, step, number, needed)
            wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
        return {name: future.result() for name, future in futures.items()}

    def _run_step(self, step: Step, number: int, needed: Sequence[Future[Done]]) -> Done:
        # The pool starts steps in order, so the needed steps are running or done.
        for future in needed:
            future.result()
        key, stamp = self._key(step), self.work_dir / 'stamps' / f'{step.name}.json'
        before = _finished_before(step, stamp, key)
        if before:
            self._say(number, f'{step.title}: already done, {clock(before.seconds)}\n$ {step.shown}')
            return before
        self._say(number, f'{step.title}\n$ {step.shown}')
        log = self.work_dir / 'logs' / f'{step.name}.log'
        for old in (stamp, log):
            old.unlink(missing_ok=True)
        if step.folder is not None:
            shutil.rmtree(ROOT / step.folder, ignore_errors=True)

        def heartbeat() -> None:
            line = ''.join(last_lines(log, 1)).strip() or 'no output yet'
            self._say(number, f'  {line[:_LINE_WIDTH]}')

        command = [sys.executable, *step.command]
        outcome = run_logged(command, log, self.environment, ROOT, heartbeat=heartbeat, interval=HEARTBEAT_SECONDS)
        missing = [str(path) for path in step.outputs if not (ROOT / path).exists()]
        if outcome.status or missing:
            reason = f'exit status {outcome.status}' if outcome.status else f'it did not write {", ".join(missing)}'
            raise StepError(
                f'{step.title}: failed ({reason}). The end of {_from_here(log)}:\n{quoted_end(log)}\n'
                f'To run this step alone:\n$ {step.shown}\n'
                'To continue at this step (finished steps are not repeated):\n'
                f'$ {shlex.join(("python", *map(_from_here, sys.argv)))}'
            )
        write_json(stamp, dict(key=key, command=step.shown, seconds=outcome.seconds, peak_mib=outcome.peak_mib))
        self._say(number, f'{step.title}: done in {clock(outcome.seconds)}')
        return Done(outcome.seconds, outcome.peak_mib, skipped=False)

    def _key(self, step: Step) -> str:
        """Fingerprint of the command and of the step's inputs."""
        files = {*step.inputs, *(path for needed in step.after for path in needed.outputs)}
        parts = [step.shown, *sorted(f'{path} {fingerprint(path)}' for path in files)]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()

    def _say(self, number: int, text: str) -> None:
        head = f'[{number:2d}/{self._total} {clock(time.monotonic() - self._began):>5}]'
        # a single write, so that lines of several threads do not mix
        print(f'{head} {text}\n', end='', flush=True)


def _finished_before(step: Step, stamp: Path, key: str) -> Done | None:
    try:
        found = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if found.get('key') != key or not all((ROOT / path).exists() for path in step.outputs):
        return None
    return Done(found['seconds'], found['peak_mib'], skipped=True)


def _from_here(path: str | Path) -> str:
    """A path relative to the repository, if it is inside."""
    return str(path).removeprefix(f'{ROOT}{os.sep}')
