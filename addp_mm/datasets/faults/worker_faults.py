# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors of the workers of a data loader in one line: which process, which sample, what to do."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.faults.current_samples import CurrentSample
from addp_mm.datasets.faults.sample_files import sample_name
from addp_mm.datasets.faults.watched_dataset import live_datasets
from addp_mm.errors import UserError

_SECONDS_OF_DEATH = 2.0
_DIED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]+)\.|exited)')
_TIMED_OUT = re.compile(r'DataLoader timed out after ([\d.]+) seconds')
_GO_ON = '--resume continues from the last checkpoint.'
_ADVICE = {
    'SIGKILL': "Often it is the kernel's memory killer (see dmesg): set fewer num_workers or a smaller "
    f'prefetch_factor. {_GO_ON}',
    'SIGBUS': 'A file became shorter while it was read from a memory map, or /dev/shm is full: compare the size of '
    f'the file with the original, and see df /dev/shm. {_GO_ON}',
    'SIGSEGV': f'A decoder crashed: if it does so again on this sample, replace or remove its file. {_GO_ON}',
}


class WorkerError(DatasetError):
    """A worker of a data loader died, or does not answer; the message names its sample."""


@contextmanager
def named_worker_faults() -> Iterator[None]:
    """Replace the errors of torch's DataLoader about its workers by errors of one line.

    Raises:
        WorkerError: A worker died, or gave no batch within the loader's ``timeout``.
        UserError: A worker raised it. The message is as it was in the worker.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        cause = error if isinstance(error, RuntimeError) else _death_of_a_worker()
        words = _words(_with_causes(cause))
        if words is None:
            raise
        raise WorkerError(words) from error
    except UserError as error:
        message = _message_in_worker(error)
        if message is None:
            raise
        raise type(error)(message) from error


def _death_of_a_worker() -> RuntimeError | None:
    """The error of torch about a worker that dies: its connections end a moment before it."""
    end = time.monotonic() + _SECONDS_OF_DEATH
    while time.monotonic() < end:
        try:
            _error_if_any_worker_fails()
            time.sleep(0.02)  # the handler of SIGCHLD may raise the error here
        except RuntimeError as error:
            return error
    return None


def _with_causes(error: BaseException | None) -> str:
    """The messages of an error and its causes: torch names the signal in one of them."""
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    return ' '.join(reversed(messages))


def _words(text: str) -> str | None:
    """What happened to the workers; None if the text is about something else."""
    if died := _DIED.search(text):
        pids = [int(pid) for pid in died[1].split(',')]
        name = _signal_name(died[2])
        how = f'was ended by {name}' if name else 'ended'
        samples = '; '.join(_sample_of(pid) for pid in pids)
        advice = _ADVICE.get(name or '', f'{_GO_ON} With train_dataloader.num_workers=0, the error itself is shown.')
        return f'the data loader worker {died[1].strip()} {how}: {samples}. {advice}'
    if late := _TIMED_OUT.search(text):
        reading = [(one, where) for one, where in _current() if one.reads]
        samples = '; '.join(
            f'process {one.pid} has been reading {where} for {one.seconds:.0f} s' for one, where in reading
        )
        return (
            f'the data loader gave no batch for {late[1]} s (timeout of the dataloader): '
            f'{samples or "no worker was reading a sample"}. Check the disk of these files, or set a longer timeout. '
            f'{_GO_ON}'
        )
    return None


def _signal_name(words: str | None) -> str | None:
    """``'SIGKILL'`` for ``'Killed'``, as the system describes signals."""
    return next((one.name for one in signal.Signals if words and signal.strsignal(one) == words.strip()), words)


def _sample_of(pid: int) -> str:
    found = [(one, where) for one, where in _current() if one.pid == pid]
    reading = [where for one, where in found if one.reads]
    if reading:
        return f'it was reading {", ".join(reading)}'
    return f'its last sample was {found[0][1]}' if found else 'it had not read a sample'


def _current() -> list[tuple[CurrentSample, str]]:
    """The samples of all workers, with their names."""
    samples = [(one, dataset) for dataset in live_datasets() for one in dataset.current.read()]
    return [(one, _name(dataset.watched, one.number)) for one, dataset in samples if one.pid != os.getpid()]


def _name(dataset: Any, number: int) -> str:
    if number < 0:
        return f'a sample of {type(dataset).__name__} whose index is not a number'
    return sample_name(dataset, number)


def _message_in_worker(error: UserError) -> str | None:
    """The message of an error that torch raised again, without the worker's traceback in it."""
    text, kind = str(error), type(error)
    if not text.startswith('Caught ') or 'Original Traceback' not in text:
        return None
    _, found, message = text.rpartition(f'\n{kind.__module__}.{kind.__qualname__}: ')
    return message.strip() if found else None
