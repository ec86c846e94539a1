# Copyright (c) addp_mm contributors. Apache-2.0.
"""Faults of files, disks, data and processes, put into real trainings."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.saving import write_checkpoint
from chaos_runs.kills import compare, whole_run
from chaos_runs.kinds import INTERVAL, ROOT, Kind
from chaos_runs.training import Ended, train

_AT = 3 * INTERVAL  # iteration of the checkpoint that is damaged


@dataclass
class Trial:
    """A training with a fault.

    Args:
        fault: Name of the fault.
        kind: Name of the kind of training.
        lost: What was lost.
        different: What differs from the training without an interruption.
        message: The line that names the fault.
    """

    fault: str
    kind: str
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    message: str = ''

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


class _Place:
    """The files of one trial."""

    def __init__(self, fault: str, kind: Kind, folder: Path, data: Path) -> None:
        self.kind, self.data, self.trial = kind, data, Trial(fault, kind.name)
        self.whole, self.seconds = whole_run(kind, folder, data)
        self.folder = folder / kind.name / fault.replace(' ', '-')
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.work_dir, self._number = self.folder / 'run', 0

    def train(self, attack: Callable[[int, float], None] | None = None, workers: int = 0, **options: object) -> Ended:
        """Start the training, or resume it."""
        config = self.kind.write_config(self.folder / 'config.py', self.data, **options)
        self._number += 1
        arguments = [str(config), '--work-dir', str(self.work_dir), '--resume']
        if workers:
            arguments += ['--cfg-options', f'train_dataloader.num_workers={workers}']
        return train(arguments, self.folder / f'{self._number}.log', attack)

    def until_checkpoint(self) -> Path:
        """Train up to a checkpoint, and end with SIGKILL after it."""
        names = [f'iter_{_AT}.pth', f'iter_{_AT + INTERVAL}.pth', 'epoch_2.pth']
        last = self.work_dir / 'last_checkpoint'

        def attack(pid: int, _: float) -> None:
            if last.is_file() and last.read_text().endswith(tuple(names)):
                os.kill(pid, signal.SIGKILL)

        self.train(attack)
        path = Path(last.read_text())
        if not path.name.endswith(tuple(names)):
            raise RuntimeError(f'{self.folder}: there is no checkpoint {" or ".join(names)}')
        return path

    def named(self, ended: Ended, *words: str) -> None:
        """Note the line of the output that has all words, or that there is none."""
        line = next((line for line in ended.output.splitlines() if all(word in line for word in words)), '')
        self.trial.message = line or self.trial.message
        if not line:
            self.trial.lost.append(f'no line with {" and ".join(words)}: {self.folder}')
        if 'Traceback' in ended.output:
            self.trial.lost.append(f'a traceback: {self.folder}')

    def finish(self) -> Trial:
        """Resume without a fault, and compare."""
        ended = self.train()
        return self.compared(ended)

    def compared(self, ended: Ended) -> Trial:
        """Compare a training that has come to its end."""
        if ended.status != 0:
            self.trial.lost.append(f'exit status {ended.status}: {ended.error}: {self.folder}')
        else:
            self.trial.different = compare(self.kind, self.whole, self.work_dir)
        if not self.trial.lost and not self.trial.different:
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.trial


def _damaged(damage: Callable[[Path], None], *words: str) -> Callable[[_Place], Trial]:
    """A trial in which the last checkpoint is damaged while no training runs."""

    def trial(place: _Place) -> Trial:
        path = place.until_checkpoint()
        damage(path)
        ended = place.train()
        place.named(ended, *(words or ('--resume auto:', path.name)))
        if not words and (ended.resumed_at or 0) >= _iteration(place.kind, path):
            place.trial.lost.append(f'the damaged checkpoint was resumed: {place.folder}')
        return place.compared(ended)

    return trial


def _iteration(kind: Kind, path: Path) -> int:
    """Iteration of a checkpoint, by its name."""
    number = int(path.stem.rpartition('_')[2])
    return number * kind.interval if path.name.startswith('epoch') else number


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = (np.frombuffer(content[middle : middle + 64], np.uint8) ^ 0xFF).tobytes()
    path.write_bytes(content)


def _non_finite(path: Path) -> None:
    checkpoint = load_checkpoint_file(path)
    name = next(name for name, value in checkpoint['state_dict'].items() if value.is_floating_point() and value.dim())
    checkpoint['state_dict'][name].view(-1)[0] = torch.nan
    write_checkpoint(checkpoint, path)


class _Code:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ['CHAOS_CODE_RAN'],)


def _with_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(dict(meta=_Code(), state_dict={})))


def _lose(path: Path) -> None:
    path.unlink()


def _no_name(path: Path) -> None:
    (path.parent / 'last_checkpoint').write_text('')


def _code_in_checkpoint(place: _Place) -> Trial:
    mark = place.folder.with_name('the_code_ran')
    os.environ['CHAOS_CODE_RAN'] = str(mark)
    done = _damaged(_with_code)(place)
    if mark.exists():
        done.lost.append('the code in the checkpoint was run')
    return done


def _on_small_disk(fill: Callable[[Path], None], clear: Callable[[Path], None]) -> Callable[[_Place], Trial]:
    """A trial whose work dir is a disk of its own; ``fill`` breaks it during the training."""

    def trial(place: _Place) -> Trial:
        place.work_dir.mkdir()
        _mount(place.work_dir, 'size=2g')
        try:
            first = f'iter_{INTERVAL}.pth' if 'iter' in place.kind.last else 'epoch_1.pth'
            done = []

            def attack(_pid: int, _seconds: float) -> None:
                if not done and (place.work_dir / first).is_file():
                    fill(place.work_dir)
                    done.append(True)

            ended = place.train(attack)
            if ended.status == 0:
                place.trial.lost.append('the training did not notice')
            place.named(ended, 'error:', str(place.work_dir))
            clear(place.work_dir)
            if not (place.work_dir / first).is_file():
                place.trial.lost.append(f'{first} is lost')
            ended = place.train()
            return place.compared(ended)
        finally:
            while place.work_dir.is_mount():
                _unlock(place.work_dir)

    return trial


def _mount(folder: Path, options: str) -> None:
    subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)], check=True)


def _fill(folder: Path) -> None:
    used = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    subprocess.run(['mount', '-o', f'remount,size={used + 70_000}', str(folder)], check=True)


def _grow(folder: Path) -> None:
    subprocess.run(['mount', '-o', 'remount,size=2g', str(folder)], check=True)


def _lock(folder: Path) -> None:
    # a second mount on top: the first cannot become read-only while its log is open for writing
    subprocess.run(['mount', '--bind', str(folder), str(folder)], check=True)
    subprocess.run(['mount', '-o', 'remount,ro,bind', str(folder)], check=True)


def _unlock(folder: Path) -> None:
    subprocess.run(['umount', '-l', str(folder)], check=True)


def _worker_dies(place: _Place) -> Trial:
    began: list[float] = []

    def attack(pid: int, seconds: float) -> None:
        children = _children(pid)
        if children and not began and list(place.work_dir.glob('*.pth')):
            began.append(seconds)
            os.kill(children[0], signal.SIGKILL)

    ended = place.train(attack, workers=2)
    if ended.status == 0:  # it had read all samples of its epoch
        return place.compared(ended)
    place.named(ended, 'error:', 'worker')
    return place.finish()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
    except OSError:
        return []


def _broken_images(place: _Place) -> Trial:
    """Images break in mid-training: one that is killed then ends as one that is not."""
    original, place.data = place.data, place.folder / 'data'
    shutil.copytree(original, place.data)
    place.until_checkpoint()
    images = sorted((place.data / place.kind.images).rglob('*.png'))
    gone, cut, hanging = images[3], images[5], images[7]
    gone.unlink()
    os.truncate(cut, cut.stat().st_size // 2)
    hanging.unlink()
    os.mkfifo(hanging)  # nobody writes to it: a read waits for ever
    options = {'default_hooks.broken_samples': dict(type='addp_mm.BrokenSamplesHook', sample_seconds=1)}
    run, place.work_dir = place.work_dir, place.folder / 'undisturbed'
    shutil.copytree(run, place.work_dir)
    undisturbed = place.train(**options)
    for image in (cut, hanging):
        place.named(undisturbed, image.name)
    # without a list of the images, a resumed training cannot know the name
    place.named(undisturbed, gone.name if gone.name in undisturbed.output else f'had {len(images)} samples')
    place.whole, place.work_dir = place.work_dir, run

    def attack(pid: int, seconds: float) -> None:
        if seconds > place.seconds / 2:
            os.kill(pid, signal.SIGKILL)

    place.train(attack, workers=2, **options)
    return place.compared(place.train(workers=2, **options))


def _rank_dies(place: _Place) -> Trial:
    """One of two processes is killed; the launcher starts them again."""
    script = [sys.executable, '-m', 'addp_mm.torchrun', '--standalone', '--nproc-per-node', '2']
    # each process has its own batch norm statistics, unless they are those of the first one
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
    config = place.kind.write_config(place.folder / 'config.py', place.data, model_wrapper_cfg=wrapper)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}

    def run(work_dir: Path, restarts: int, kill: bool) -> tuple[int, str]:
        command = [*script, '--max-restarts', str(restarts), str(ROOT / 'tools/train.py'), str(config)]
        log = place.folder / f'{work_dir.name}.log'
        with open(log, 'w') as output:
            process = subprocess.Popen(
                [*command, '--launcher', 'pytorch', '--work-dir', str(work_dir)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            while process.poll() is None:
                if kill and list(work_dir.glob('*.pth')):
                    ranks = [one for one in _children(process.pid) if b'--launcher' in _command(one)]
                    os.kill(ranks[-1], signal.SIGKILL)
                    kill = False
                time.sleep(0.05)
        return process.returncode, log.read_text(errors='replace')

    status, output = run(place.folder / 'two', 0, kill=False)
    if status:
        raise RuntimeError(f'two processes cannot train {place.kind.name}: {place.folder / "two.log"}')
    place.whole = place.folder / 'two'
    status, output = run(place.work_dir, 2, kill=True)
    ended = Ended(status, 0.0, output)
    place.named(ended, 'resumed epoch')
    return place.compared(ended)


def _command(pid: int) -> bytes:
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''


FAULTS: dict[str, Callable[[_Place], Trial]] = {
    'last checkpoint cut in half': _damaged(_cut),
    'last checkpoint empty': _damaged(_empty),
    '64 bytes of the last checkpoint flipped': _damaged(_flip),
    'NaN in the last checkpoint': _damaged(_non_finite),
    'last checkpoint replaced by a pickle with code': _code_in_checkpoint,
    'last checkpoint deleted': _damaged(_lose),
    'last_checkpoint empty': _damaged(_no_name, 'last_checkpoint'),
    'disk full during a save': _on_small_disk(_fill, _grow),
    'folder becomes read-only': _on_small_disk(_lock, _unlock),
    'one image gone, one cut, one that hangs': _broken_images,
    'loading process killed': _worker_dies,
    'one of two ranks killed': _rank_dies,
}
_NEED_MOUNT = ('disk full during a save', 'folder becomes read-only')


def faults_here() -> list[str]:
    """Names of the faults that can be made on this machine: some need root, to mount a disk."""
    may_mount = sys.platform == 'linux' and os.geteuid() == 0 and shutil.which('mount')
    return [name for name in FAULTS if may_mount or name not in _NEED_MOUNT]


def run_trial(fault: str, kind: Kind, folder: Path, data: Path) -> Trial:
    """Train with a fault."""
    return FAULTS[fault](_Place(fault, kind, folder, data))
