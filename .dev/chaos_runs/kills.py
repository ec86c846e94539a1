# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training after training, each ended several times and resumed, and compared with a whole one."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.training_state import differences
from chaos_runs.kinds import Kind
from chaos_runs.training import logged, train

SIGNALS = {'SIGKILL': 0.6, 'SIGTERM': 0.15, 'SIGINT': 0.15, 'SIGUSR1': 0.1}  # shares
# exit status; before the training has begun, a signal ends it as any process
STOPPED = {'SIGKILL': -signal.SIGKILL, 'SIGTERM': 75, 'SIGUSR1': 75, 'SIGINT': 130}
MOST_KILLS = 5
_MOST_LINES = 5  # of differences between two files
_WRITING = ('*.pth', '*.partial', 'last_checkpoint')


@dataclass
class Chain:
    """A training that was ended several times.

    Args:
        kind: Name of its kind.
        number: Its number.
        ends: Signal, moment ('any' or 'write') and iteration of each end.
        lost: What was lost: iterations beyond the last checkpoint, or the training.
        different: What differs from the uninterrupted training.
    """

    kind: str
    number: int
    ends: list[tuple[str, str, int]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


class Attack:
    """Sends one signal to a training.

    Args:
        name: Name of the signal.
        whole_group: Whether the workers get it too.
        after: Seconds after the start.
        folder: If given, the signal is sent ``after`` seconds after a file of a checkpoint there
            appears or changes.
    """

    def __init__(self, name: str, whole_group: bool, after: float, folder: Path | None = None) -> None:
        self.name, self.whole_group, self.after, self.folder = name, whole_group, after, folder
        self.sent = False
        self._before = _files(folder) if folder else None
        self._seen: float | None = None

    def __call__(self, pid: int, seconds: float) -> None:
        """Send the signal if it is time."""
        if self.sent:
            return
        if self.folder is not None:
            if self._seen is None and _files(self.folder) != self._before:
                self._seen = seconds
            if self._seen is None or seconds < self._seen + self.after:
                return
        elif seconds < self.after:
            return
        number = getattr(signal, self.name)
        try:
            os.killpg(pid, number) if self.whole_group else os.kill(pid, number)
        except ProcessLookupError:  # before its setsid, or it has just ended
            os.kill(pid, number)
        self.sent = True


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    for pattern in _WRITING:
        for path in folder.glob(pattern) if folder.is_dir() else ():
            try:
                found.append((path.name, path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
    return sorted(found)


def whole_run(kind: Kind, folder: Path, data: Path) -> tuple[Path, float]:
    """Train a kind without interruption, unless it was done before.

    Returns:
        Its work dir, and the seconds that it took.

    Raises:
        RuntimeError: The training failed.
    """
    work_dir, seconds = folder / kind.name / 'whole', folder / kind.name / 'seconds.txt'
    if not seconds.is_file():
        shutil.rmtree(work_dir, ignore_errors=True)
        config = kind.write_config(folder / kind.name / 'config.py', data)
        ended = train([str(config), '--work-dir', str(work_dir)], folder / kind.name / 'whole.log')
        if ended.status != 0 or not (work_dir / kind.last).is_file():
            raise RuntimeError(f'{kind.name} cannot be trained: {folder / kind.name / "whole.log"}\n{ended.error}')
        seconds.write_text(str(ended.seconds))
    return work_dir, float(seconds.read_text())


def run_chain(kind: Kind, number: int, folder: Path, data: Path, seed: int, kills: int) -> Chain:
    """End a training at random moments until it is through, and compare it.

    Args:
        kind: The kind.
        number: Number of the chain.
        folder: Folder of all runs.
        data: FashionScenes.
        seed: Seed of the chaos.
        kills: Largest number of ends.
    """
    rng = np.random.default_rng([seed, number])
    whole, seconds = whole_run(kind, folder, data)
    place = folder / kind.name / f'{number:04d}'
    shutil.rmtree(place, ignore_errors=True)
    work_dir, chain = place / 'run', Chain(kind.name, number)
    config, saved = kind.write_config(place / 'config.py', data), 0
    for attempt in range(kills + 1):
        attack = _attack(rng, work_dir, seconds) if attempt < kills else None
        workers = int(rng.choice([0, 2], p=[0.7, 0.3]))
        options = ['--resume', '--cfg-options', f'train_dataloader.num_workers={workers}']
        before, log = len(logged(work_dir)), place / f'{attempt}.log'
        ended = train([str(config), '--work-dir', str(work_dir), *options], log, attack)
        reached = max((max(run, default=0) for run in logged(work_dir)[before:]), default=0)
        signalled = attack is not None and attack.sent
        if (reached or ended.status == 0) and (ended.resumed_at or 0) < saved:
            chain.lost.append(f'resumed at iteration {ended.resumed_at}, not {saved}: {log}')
        fine = {0, *((STOPPED[attack.name], -getattr(signal, attack.name)) if signalled else ())}
        if ended.status not in fine or signalled and reached and ended.status not in (0, STOPPED[attack.name]):
            chain.lost.append(f'exit status {ended.status}: {ended.error}: {log}')
        if not signalled or ended.status == 0:  # a signal may come when the training has ended
            break
        chain.ends.append((attack.name, 'write' if attack.folder else 'any', reached))
        # after SIGKILL, only the iterations since the last checkpoint are repeated
        saved = max(saved, reached - (kind.interval if attack.name == 'SIGKILL' else 0))
    chain.different = compare(kind, whole, work_dir)
    if not chain.lost and not chain.different:
        shutil.rmtree(place)
    return chain


def _attack(rng: np.random.Generator, work_dir: Path, seconds: float) -> Attack:
    name = str(rng.choice(list(SIGNALS), p=list(SIGNALS.values())))
    group = bool(rng.random() < 0.5)
    if rng.random() < 0.4:
        return Attack(name, group, rng.uniform(0, 0.15), work_dir)
    return Attack(name, group, rng.uniform(0, seconds))


def compare(kind: Kind, whole: Path, work_dir: Path) -> list[str]:
    """Differences between two finished trainings: last checkpoints, best ones, and logs."""
    found = []
    names = [kind.last, *(path.name for path in whole.glob('best_*.pth'))]
    for name in names:
        if not (work_dir / name).is_file():
            found.append(f'{work_dir / name} is missing')
            continue
        first, second = (load_checkpoint_file(folder / name) for folder in (whole, work_dir))
        lines = differences(first, second)
        found += [f'{name}: {line}' for line in lines[:_MOST_LINES]]
        found += [f'{name}: {len(lines)} differences'] if len(lines) > _MOST_LINES else []
    expected, together = _merged(whole), _merged(work_dir)
    for run in logged(work_dir):
        for step, values in run.items():
            other = [key for key in values if not _same(values[key], expected.get(step, {}).get(key))]
            if other:
                found.append(f'log of iteration {step}: {", ".join(other)}')
    missing = [step for step in expected if expected[step].keys() - together.get(step, {}).keys()]
    if missing:
        found.append(f'iterations missing in the log: {missing}')
    return found


def _merged(work_dir: Path) -> dict[int, dict]:
    """The values of all runs of a training."""
    merged: dict[int, dict] = {}
    for run in logged(work_dir):
        for step, values in run.items():
            merged.setdefault(step, {}).update(values)
    return merged


def _same(first: object, second: object) -> bool:
    return first == second or first != first and second != second  # NaN
